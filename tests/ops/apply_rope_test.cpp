// apply_rope() against the oracle, on every SIMD target.

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "on_targets.h"
#include "oracle/number.h"
#include "oracle/rope.h"
#include "pagedkv/cpu.h"
#include "support/convert.h"
#include "support/memory.h"
#include "support/random.h"
#include "support/rows.h"

namespace ops {
namespace {

using pagedkv::DType;
using pagedkv::RopePairs;

class ApplyRope : public OnTarget {};
INSTANTIATE_TEST_SUITE_P(Targets, ApplyRope, all_targets(), target_name);

struct Case {
  DType dtype = DType::f16;
  int heads = 3;
  int head_dim = 64;
  int rope_dim = 64;
  RopePairs pairs = RopePairs::interleaved;
  bool bias = false;
  support::RowOrder from = support::RowOrder::packed;
  support::RowOrder to = support::RowOrder::packed;
  bool in_place = false;
  std::vector<std::int32_t> q_len = {1, 5, 0, 40};
  std::vector<std::int32_t> history = {100000, 0, 3, 777};
};

std::vector<std::int32_t> cumulative(const std::vector<std::int32_t>& lengths, std::int32_t first) {
  std::vector<std::int32_t> cu = {first};
  for (const std::int32_t n : lengths) cu.push_back(cu.back() + n);
  return cu;
}

void run(const Case& c) {
  support::Random random(static_cast<std::uint64_t>(c.head_dim * 7 + c.rope_dim + static_cast<int>(c.dtype)));
  const oracle::Type t = support::to_oracle(c.dtype);
  const auto batch = static_cast<std::int32_t>(c.q_len.size());
  std::vector<std::int32_t> k_len;
  for (std::size_t b = 0; b < c.q_len.size(); ++b) k_len.push_back(c.history[b] + c.q_len[b]);
  const auto cu_q = cumulative(c.q_len, 2);
  const auto cu_k = cumulative(k_len, 0);
  const auto layout_of = [&](support::RowOrder order) {
    return support::row_layout(order, batch, cu_q.back(), 40, c.heads, c.head_dim);
  };
  const support::RowLayout from = layout_of(c.from);
  const support::RowLayout to = layout_of(c.in_place ? c.from : c.to);

  support::Tensor x(t, from.elements);
  support::Tensor y(t, to.elements);
  support::Tensor bias(t, c.heads * c.head_dim);
  for (std::int64_t i = 0; i < from.elements; ++i) x.set(i, oracle::round_to(t, random.normal()));
  for (std::int64_t i = 0; i < c.heads * c.head_dim; ++i) bias.set(i, oracle::round_to(t, random.normal()));
  std::vector<double> input(static_cast<std::size_t>(from.elements));
  for (std::int64_t i = 0; i < from.elements; ++i) input[static_cast<std::size_t>(i)] = x.get(i);
  support::Tensor& result = c.in_place ? x : y;

  pagedkv::RopeParams params;
  params.type = pagedkv::RopeType::standard;
  params.pairs = c.pairs;
  params.dim = c.rope_dim;
  pagedkv::ApplyRopeArgs a{.dtype = c.dtype, .heads = c.heads, .head_dim = c.head_dim, .batch = batch};
  a.cu_q = cu_q.data();
  a.cu_k = cu_k.data();
  a.x = x.at(from.k_first);
  a.x_strides = from.strides;
  a.y = result.at(to.k_first);
  a.y_strides = to.strides;
  if (c.bias) a.bias = bias.at(0);
  a.rope = pagedkv::make_rope_table(params, c.head_dim);
  pagedkv::cpu::apply_rope(a, {.threads = 2});

  oracle::Rope rope;
  rope.kind = oracle::RopeKind::standard;
  rope.half_split = c.pairs == RopePairs::half_split;
  rope.dim = c.rope_dim;
  for (std::int32_t b = 0; b < batch; ++b) {
    const auto i = static_cast<std::size_t>(b);
    for (std::int32_t token = 0; token < c.q_len[i]; ++token) {
      for (int h = 0; h < c.heads; ++h) {
        std::vector<double> row(static_cast<std::size_t>(c.head_dim));
        for (int d = 0; d < c.head_dim; ++d) {
          row[static_cast<std::size_t>(d)] = input[static_cast<std::size_t>(from.k(b, cu_q[i], token, h) + d)];
          if (c.bias) row[static_cast<std::size_t>(d)] += bias.get(h * c.head_dim + d);
        }
        const long long position = c.history[i] + token;
        oracle::rotate(rope, {position, position, position}, row);
        for (int d = 0; d < c.head_dim; ++d) {
          const double exact = row[static_cast<std::size_t>(d)];
          const double actual = result.get(to.k(b, cu_q[i], token, h) + d);
          // One rounding to T, and float32 before it: sine, cosine, products of numbers below 10.
          ASSERT_NEAR(actual, exact, oracle::half_ulp(t, exact) + 4e-6) << b << ' ' << token << ' ' << h << ' ' << d;
        }
      }
    }
  }
}

TEST_P(ApplyRope, TypesPairsAndDimensions) {
  for (const DType t : {DType::f32, DType::f16, DType::bf16}) {
    for (const RopePairs pairs : {RopePairs::interleaved, RopePairs::half_split}) {
      for (const int dim : {16, 48, 64, 128, 192, 256, 576}) {
        for (const int rotated : {dim, dim / 2}) {
          const int unit = pairs == RopePairs::interleaved ? 8 : 16;
          run({.dtype = t,
               .head_dim = dim,
               .rope_dim = std::max(unit, std::min(rotated, 256) / unit * unit),
               .pairs = pairs});
        }
      }
    }
  }
}

TEST_P(ApplyRope, BiasStridesAndPlace) {
  for (const support::RowOrder from : support::kRowOrders) {
    for (const support::RowOrder to : support::kRowOrders) {
      for (const bool bias : {false, true}) {
        run({.pairs = RopePairs::half_split, .bias = bias, .from = from, .to = to});
      }
    }
    run({.bias = true, .from = from, .in_place = true});
    run({.pairs = RopePairs::half_split, .from = from, .in_place = true});
  }
}

TEST_P(ApplyRope, WithoutRotationRowsAreCopied) {
  std::vector<std::uint16_t> x(2 * 3 * 64);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::uint16_t>(i * 171);  // NaN of all kinds among them
  const std::int32_t cu[2] = {0, 2};
  support::Poisoned from(x.size() * 2);
  support::Poisoned to(x.size() * 2);
  std::memcpy(from.data(), x.data(), x.size() * 2);
  pagedkv::ApplyRopeArgs a{.dtype = DType::f16, .heads = 3, .head_dim = 64, .batch = 1};
  a.cu_q = a.cu_k = cu;
  a.x = from.data();
  a.y = to.data();
  a.x_strides = a.y_strides = pagedkv::packed_strides(3, 64);
  pagedkv::cpu::apply_rope(a);
  EXPECT_EQ(std::memcmp(to.data(), x.data(), x.size() * 2), 0);
}

}  // namespace
}  // namespace ops
