// Context parallelism: ranks attend over their own tokens, and their results are joined.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "ops/attention_case.h"
#include "ops/on_targets.h"
#include "oracle/number.h"
#include "support/convert.h"

namespace ops {
namespace {

using pagedkv::DType;
using pagedkv::KvType;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Merged {
  std::vector<double> o;
  std::vector<double> lse;
};

/// Merges parts of rows x dim, given as doubles; the outputs are poisoned first.
Merged merge(DType dtype, int parts, int rows, int dim, const std::vector<double>& o, const std::vector<double>& lse,
             int threads) {
  const std::vector<float> o_parts(o.begin(), o.end());
  const std::vector<float> lse_parts(lse.begin(), lse.end());
  alignas(16) static char out[1 << 16];
  const oracle::Type type = support::to_oracle(dtype);
  const auto bytes = static_cast<std::size_t>(rows * dim * oracle::bytes_of(type));
  EXPECT_LE(bytes + 64, sizeof(out));
  std::memset(out, 0xcd, sizeof(out));
  std::vector<float> lse_out(static_cast<std::size_t>(rows) + 1, -7.0F);
  std::vector<char> aligned_parts(o_parts.size() * 4 + 16);
  char* at = aligned_parts.data() + (16 - reinterpret_cast<std::uintptr_t>(aligned_parts.data()) % 16) % 16;
  std::memcpy(at, o_parts.data(), o_parts.size() * 4);
  pagedkv::MergePartialsArgs a;
  a.parts = parts;
  a.rows = rows;
  a.dim = dim;
  a.dtype = dtype;
  a.o_parts = reinterpret_cast<const float*>(at);
  a.lse_parts = lse_parts.data();
  a.o = out;
  a.lse = lse_out.data();
  pagedkv::cpu::merge_partials(a, {threads});
  Merged m;
  for (int i = 0; i < rows * dim; ++i) m.o.push_back(oracle::load(type, out + i * oracle::bytes_of(type)));
  for (std::size_t i = bytes; i < bytes + 64; ++i) EXPECT_EQ(out[i], '\xcd');
  EXPECT_EQ(lse_out.back(), -7.0F);
  for (int i = 0; i < rows; ++i) m.lse.push_back(static_cast<double>(lse_out[static_cast<std::size_t>(i)]));
  return m;
}

class ContextParallelAttention : public OnTarget {};
INSTANTIATE_TEST_SUITE_P(Targets, ContextParallelAttention, all_targets(), target_name);

TEST_P(ContextParallelAttention, RanksMakeUpTheWhole) {
  for (const KvType format : {KvType::same, KvType::int8, KvType::int4}) {
    for (const int interleave : {1, 6, 64}) {
      for (const int window : {0, 90}) {
        CaseSpec s;
        s.config.head_dim = 32;
        s.config.format = {format, format};
        s.q_heads = 2;
        s.window = window;
        s.sinks = window > 0;
        s.o_is_f32 = true;
        s.lengths = {{1, 1, 0}, {1, 64, 1}, {3, 700, 2}, {40, 70, 3}};
        const Case::Expected whole = Case(s).expected();
        constexpr int kRanks = 3;
        const int rows = s.total_q() * s.q_heads;
        std::vector<double> o;
        std::vector<double> lse;
        for (int rank = 0; rank < kRanks; ++rank) {
          CaseSpec part = s;
          part.cp = {rank, kRanks, interleave};
          const Result r = Case(part).run(Op::prefill, 2);
          o.insert(o.end(), r.o.begin(), r.o.end());
          lse.insert(lse.end(), r.lse.begin(), r.lse.end());
        }
        const Merged m = merge(DType::f32, kRanks, rows, s.value_dim(), o, lse, 2);
        expect_close(s, {m.o, m.lse, {}, 0}, whole);
      }
    }
  }
}

TEST(MergePartials, WeighsByLse) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const Merged m = merge(dtype, 2, 2, 8, std::vector<double>(32, 1.5), {0, 3, 1, -4}, 1);
    for (const double x : m.o) EXPECT_EQ(x, 1.5);
    EXPECT_NEAR(m.lse[0], std::log(1 + std::exp(1.0)), 1e-6);
    EXPECT_NEAR(m.lse[1], 3 + std::log1p(std::exp(-7.0)), 1e-6);
  }
}

TEST(MergePartials, OnePartIsCopied) {
  const std::vector<double> o = {1, -2, 3, 0.5, 0, 7, -8, 9};
  const Merged m = merge(DType::f32, 1, 1, 8, o, {-3.25}, 1);
  EXPECT_EQ(m.o, o);
  EXPECT_EQ(m.lse[0], -3.25);
}

TEST(MergePartials, PartsThatSawNothing) {
  std::vector<double> o(3 * 2 * 8, 2.0);
  for (int i = 0; i < 16; ++i) o[static_cast<std::size_t>(i)] = kNan;  // of a part with lse -inf: not looked at
  const Merged m = merge(DType::f16, 3, 2, 8, o, {-kInfinity, -kInfinity, 1, -kInfinity, 1, -kInfinity}, 1);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(m.o[static_cast<std::size_t>(i)], 2.0);
  for (int i = 8; i < 16; ++i) EXPECT_EQ(m.o[static_cast<std::size_t>(i)], 0.0);
  EXPECT_NEAR(m.lse[0], 1 + std::log(2.0), 1e-6);
  EXPECT_EQ(m.lse[1], -kInfinity);
}

TEST(MergePartials, DamageIsVisible) {
  const Merged m = merge(DType::f32, 2, 1, 8, std::vector<double>(16, 1), {kNan, 0}, 1);
  for (const double x : m.o) EXPECT_TRUE(std::isnan(x));
  EXPECT_TRUE(std::isnan(m.lse[0]));
}

TEST(MergePartials, ManyRowsOnManyThreads) {
  constexpr int kRows = 500;
  std::vector<double> o;
  std::vector<double> lse;
  for (int part = 0; part < 2; ++part) {
    for (int row = 0; row < kRows; ++row) {
      for (int d = 0; d < 16; ++d) o.push_back(part + row);
      lse.push_back(row % 7);
    }
  }
  for (const int threads : {1, 2, 5}) {
    const Merged m = merge(DType::f32, 2, kRows, 16, o, lse, threads);
    for (int i = 0; i < kRows * 16; ++i) ASSERT_EQ(m.o[static_cast<std::size_t>(i)], i / 16 + 0.5);
  }
}

TEST(MergePartials, NoRows) {
  pagedkv::MergePartialsArgs a;
  a.parts = 1;
  a.dim = 8;
  pagedkv::cpu::merge_partials(a);
}

}  // namespace
}  // namespace ops
