#include "ops/attention_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <sstream>

#include "oracle/context_parallel.h"
#include "oracle/layout.h"
#include "oracle/quant.h"
#include "support/convert.h"

namespace ops {
namespace {

constexpr std::uint8_t kPoison = 0xcd;
constexpr std::size_t kAlignment = 256;

/// A number in about [-2, 2] that follows from its coordinates alone, bell-shaped.
double made_up(int kind, int id, int position, int head, int d) {
  std::uint64_t x = static_cast<std::uint64_t>(kind) << 58;
  for (const int part : {id, position, head, d}) {
    x = (x ^ static_cast<std::uint64_t>(part)) * 0x9e3779b97f4a7c15u + 0x632be59bd9b4e019u;
    x ^= x >> 29;
  }
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 32;
  double sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<double>((x >> (16 * i)) & 0xffff) / 65536.0 - 0.5;
  return 2 * sum;
}

std::uint8_t* aligned(std::vector<std::uint8_t>& v) {
  const auto at = reinterpret_cast<std::uintptr_t>(v.data());
  return v.data() + (kAlignment - at % kAlignment) % kAlignment;
}
const std::uint8_t* aligned(const std::vector<std::uint8_t>& v) {
  return aligned(const_cast<std::vector<std::uint8_t>&>(v));
}

}  // namespace

int CaseSpec::total_q() const {
  return std::accumulate(lengths.begin(), lengths.end(), 0, [](int sum, const Lengths& l) { return sum + l.q_len; });
}

std::string describe(const CaseSpec& s) {
  std::ostringstream out;
  out << name(s.config.dtype) << " K " << name(s.config.format.k) << " V " << name(s.config.format.v) << " D "
      << s.config.head_dim << " heads " << s.q_heads << "/" << s.config.kv_heads << " block " << s.config.block_len
      << " window " << s.window << " softcap " << s.softcap << " sinks " << s.sinks << " causal " << s.causal << " cp "
      << s.cp.rank << "/" << s.cp.size << "x" << s.cp.interleave << " v " << s.v_offset << "+" << s.value_dim()
      << " finished " << !s.finished.empty() << " tree " << !s.tree_mask.empty() << " log-n " << s.log_n_length;
  return out.str();
}

std::vector<std::uint32_t> Result::tokens(int first, int count) const {
  const auto begin = bits.begin() + static_cast<std::ptrdiff_t>(bits_of_token) * first;
  return {begin, begin + static_cast<std::ptrdiff_t>(bits_of_token) * count};
}

Case::Case(const CaseSpec& spec) : spec_(spec), layout_(pagedkv::make_layout(spec.config)) {
  cu_q_ = {0};
  cu_k_ = {0};
  cu_blocks_ = {0};
  std::vector<std::vector<int>> owned;
  for (const Lengths& l : spec.lengths) {
    cu_q_.push_back(cu_q_.back() + l.q_len);
    cu_k_.push_back(cu_k_.back() + l.k_len);
    owned.push_back(oracle::owned_positions(spec.cp.rank, spec.cp.size, spec.cp.interleave, l.k_len));
    const int local = static_cast<int>(owned.back().size());
    cu_blocks_.push_back(cu_blocks_.back() + (local + layout_.block_len - 1) / layout_.block_len);
  }
  const int blocks = cu_blocks_.back() + 2;  // one unused at either end of the slab, at least
  indices_.resize(static_cast<std::size_t>(blocks));
  std::iota(indices_.begin(), indices_.end(), 0);
  std::mt19937_64 random(spec.block_order);
  std::shuffle(indices_.begin(), indices_.end(), random);

  const auto slab_bytes = static_cast<std::size_t>(blocks * layout_.block_bytes);
  slab_memory_ = std::make_unique<char[]>(slab_bytes + kAlignment);
  const auto at = reinterpret_cast<std::uintptr_t>(slab_memory_.get());
  slab_ = slab_memory_.get() + (kAlignment - at % kAlignment) % kAlignment;
  std::memset(slab_, kPoison, slab_bytes);
  for (const std::int32_t i : indices_) pointers_.push_back(slab_ + i * layout_.block_bytes);

  // Every token of every sequence goes through write_kv in one call.
  const oracle::Type type = support::to_oracle(layout_.dtype);
  const auto element = static_cast<std::size_t>(oracle::bytes_of(type));
  const auto row = static_cast<std::size_t>(layout_.kv_heads) * static_cast<std::size_t>(layout_.head_dim);
  std::vector<std::uint8_t> k(static_cast<std::size_t>(cu_k_.back()) * row * element + 2 * kAlignment);
  std::vector<std::uint8_t> v(k.size());
  for (std::size_t b = 0; b < spec.lengths.size(); ++b) {
    for (int t = 0; t < spec.lengths[b].k_len; ++t) {
      for (int h = 0; h < layout_.kv_heads; ++h) {
        for (int d = 0; d < layout_.head_dim; ++d) {
          const std::size_t at_element =
              static_cast<std::size_t>(cu_k_[b] + t) * row + static_cast<std::size_t>(h * layout_.head_dim + d);
          oracle::store(type, aligned(k) + at_element * element, made_up(1, spec.lengths[b].id, t, h, d));
          oracle::store(type, aligned(v) + at_element * element, made_up(2, spec.lengths[b].id, t, h, d));
        }
      }
    }
  }
  pagedkv::WriteKvArgs write;
  write.layout = layout_;
  write.layer = layout_.layers - 1;
  write.table.pointers = pointers_.data();
  write.table.cu_blocks = cu_blocks_.data();
  write.batch = static_cast<std::int32_t>(spec.lengths.size());
  write.cu_q = cu_k_.data();
  write.cu_k = cu_k_.data();
  write.max_total_q = cu_k_.back();
  write.k = aligned(k);
  write.v = layout_.shared_kv ? nullptr : aligned(v);
  write.strides = pagedkv::packed_strides(layout_.kv_heads, layout_.head_dim);
  write.cp = spec.cp;
  pagedkv::cpu::write_kv(write);

  const auto head = static_cast<std::size_t>(layout_.head_dim + spec.head_gap);
  q_.resize(static_cast<std::size_t>(cu_q_.back()) * static_cast<std::size_t>(spec.q_heads) * head * element +
            2 * kAlignment);
  for (std::size_t b = 0; b < spec.lengths.size(); ++b) {
    const Lengths& l = spec.lengths[b];
    for (int i = 0; i < l.q_len; ++i) {
      for (int h = 0; h < spec.q_heads; ++h) {
        const auto turn = static_cast<std::size_t>(h) % std::max(spec.q_factors.size(), std::size_t{1});
        const double factor = spec.q_factors.empty() ? 1 : spec.q_factors[turn];
        for (int d = 0; d < layout_.head_dim; ++d) {
          const auto r = static_cast<std::size_t>((cu_q_[b] + i) * spec.q_heads + h);
          oracle::store(type, aligned(q_) + (r * head + static_cast<std::size_t>(d)) * element,
                        factor * 2 * made_up(0, l.id, l.k_len - l.q_len + i, h, d));
        }
      }
    }
  }
  for (int h = 0; h < spec.q_heads; ++h) sinks_.push_back(static_cast<float>(made_up(3, 0, 0, h, 0)));
}

char* Case::block_of(int sequence, int local) const {
  return pointers_[static_cast<std::size_t>(cu_blocks_[static_cast<std::size_t>(sequence)] +
                                            local / layout_.block_len)];
}

void Case::store_row(int sequence, int kv_head, bool value, int local, double x) {
  const oracle::Layout layout(support::to_oracle(spec_.config));
  const oracle::Type type = support::to_oracle(layout_.dtype);
  const oracle::Side side = value && !layout_.shared_kv ? oracle::Side::value : oracle::Side::key;
  const int layer = layout_.layers - 1;
  char* block = block_of(sequence, local);
  const int token = local % layout_.block_len;
  if (oracle::code_bits(layout.shape().stored(side)) == 0) {
    char* data = block + layout.data(layer, kv_head, side, token);
    for (int d = 0; d < layout_.head_dim; ++d) oracle::store(type, data + d * oracle::bytes_of(type), x);
  } else {
    char* params = block + layout.params(layer, kv_head, side, token);
    oracle::store(type, params, 0);
    oracle::store(type, params + oracle::bytes_of(type), x);
  }
}

pagedkv::AttentionArgs Case::args() {
  pagedkv::AttentionArgs a;
  a.layout = layout_;
  a.layer = layout_.layers - 1;
  if (spec_.pointer_table) {
    a.table.pointers = pointers_.data();
  } else {
    a.table.indices = indices_.data();
    a.table.slab = slab_;
    a.table.slab_blocks = static_cast<std::int32_t>(indices_.size());
  }
  a.table.cu_blocks = cu_blocks_.data();
  a.batch = static_cast<std::int32_t>(spec_.lengths.size());
  a.cu_q = cu_q_.data();
  a.cu_k = cu_k_.data();
  a.max_total_q = cu_q_.back();
  for (const Lengths& l : spec_.lengths) {
    a.max_q_len = std::max(a.max_q_len, l.q_len);
    a.max_k_len = std::max(a.max_k_len, l.k_len);
  }
  a.q_heads = spec_.q_heads;
  const auto packed = [&](std::int64_t dim) {
    return pagedkv::TokenStrides{0, spec_.q_heads * (dim + spec_.head_gap), spec_.q_heads * (dim + spec_.head_gap),
                                 dim + spec_.head_gap};
  };
  a.q = aligned(q_);
  a.q_strides = packed(layout_.head_dim);
  a.o_strides = packed(spec_.value_dim());
  a.o_is_f32 = spec_.o_is_f32;
  a.softmax_scale = spec_.scale;
  a.softcap = spec_.softcap;
  a.causal = spec_.causal;
  a.window = spec_.window;
  a.sinks = spec_.sinks ? sinks_.data() : nullptr;
  a.cp = spec_.cp;
  a.v_offset = spec_.v_offset;
  a.v_dim = spec_.v_dim;
  a.finished = spec_.finished.empty() ? nullptr : spec_.finished.data();
  a.tree_mask = spec_.tree_mask.empty() ? nullptr : spec_.tree_mask.data();
  a.log_n_length = spec_.log_n_length;
  return a;
}

Result Case::run(Op op, int threads, pagedkv::AttentionArgs a) {
  const oracle::Type type = spec_.o_is_f32 ? oracle::Type::f32 : support::to_oracle(layout_.dtype);
  const auto element = static_cast<std::size_t>(oracle::bytes_of(type));
  const auto rows = static_cast<std::size_t>(cu_q_.back()) * static_cast<std::size_t>(spec_.q_heads);
  const auto dim = static_cast<std::size_t>(spec_.value_dim());
  const std::size_t stride = dim + static_cast<std::size_t>(spec_.head_gap);
  o_.assign(rows * stride * element + 2 * kAlignment, kPoison);
  lse_.assign(rows + 2, -12345.0F);
  a.o = aligned(o_);
  a.lse = lse_.data() + 1;

  const pagedkv::cpu::Exec exec{threads};
  const std::size_t bytes =
      op == Op::decode ? pagedkv::cpu::decode_workspace_bytes(a, exec) : pagedkv::cpu::prefill_workspace_bytes(a, exec);
  std::vector<std::uint8_t> workspace(bytes + 2 * kAlignment, kPoison);
  const pagedkv::Workspace memory{aligned(workspace), bytes};
  if (op == Op::decode) {
    pagedkv::cpu::decode(a, memory, exec);
  } else {
    pagedkv::cpu::prefill(a, memory, exec);
  }

  Result result;
  const std::uint8_t* o = aligned(o_);
  // Poison reads as a number that attention over made-up values does not give: f32 -4.3e8, f16 -23.2, bf16 -4.3e8.
  const double poison = [&] {
    const std::uint8_t bytes_of_poison[4] = {kPoison, kPoison, kPoison, kPoison};
    return oracle::load(type, bytes_of_poison);
  }();
  std::size_t unwritten = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t d = 0; d < dim; ++d) {
      const std::uint8_t* at = o + (r * stride + d) * element;
      result.o.push_back(oracle::load(type, at));
      unwritten += result.o.back() == poison ? 1 : 0;
      std::uint32_t bits = 0;
      std::memcpy(&bits, at, element);
      result.bits.push_back(bits);
    }
    result.lse.push_back(static_cast<double>(lse_[r + 1]));
    unwritten += result.lse.back() == -12345.0 ? 1 : 0;
    result.bits.push_back(std::bit_cast<std::uint32_t>(lse_[r + 1]));
  }
  result.bits_of_token = static_cast<std::size_t>(spec_.q_heads) * (dim + 1);
  EXPECT_EQ(unwritten, 0U) << describe(spec_);
  std::size_t stray = 0;
  for (std::size_t i = 0; i < o_.size(); ++i) {
    const std::uint8_t* at = o_.data() + i;
    const auto offset = at - o;
    const bool inside = offset >= 0 && static_cast<std::size_t>(offset) < rows * stride * element &&
                        static_cast<std::size_t>(offset) / element % stride < dim;
    stray += !inside && *at != kPoison ? 1 : 0;
  }
  for (std::size_t i = 0; i < workspace.size(); ++i) {
    const auto offset = workspace.data() + i - static_cast<std::uint8_t*>(memory.data);
    const bool inside = offset >= 0 && static_cast<std::size_t>(offset) < bytes;
    stray += !inside && workspace[i] != kPoison ? 1 : 0;
  }
  EXPECT_EQ(stray, 0U) << describe(spec_);
  EXPECT_EQ(lse_.front(), -12345.0F);
  EXPECT_EQ(lse_.back(), -12345.0F);
  return result;
}

void Case::fill_unused(std::uint8_t byte) {
  const oracle::Layout layout(support::to_oracle(spec_.config));
  std::vector<bool> used(indices_.size() * static_cast<std::size_t>(layout_.block_bytes));
  const auto use = [&](std::int64_t first, std::int64_t bytes) {
    for (std::int64_t i = first; i < first + bytes; ++i) used[static_cast<std::size_t>(i)] = true;
  };
  for (std::size_t b = 0; b < spec_.lengths.size(); ++b) {
    const int locals = static_cast<int>(
        oracle::owned_positions(spec_.cp.rank, spec_.cp.size, spec_.cp.interleave, spec_.lengths[b].k_len).size());
    for (int local = 0; local < locals; ++local) {
      const std::int64_t block = block_of(static_cast<int>(b), local) - slab_;
      for (int h = 0; h < layout_.kv_heads; ++h) {
        for (const oracle::Side side : {oracle::Side::key, oracle::Side::value}) {
          const oracle::Side stored = layout_.shared_kv ? oracle::Side::key : side;
          const int token = local % layout_.block_len;
          use(block + layout.data(layout_.layers - 1, h, stored, token), oracle::row_bytes(layout.shape(), stored));
          if (oracle::code_bits(layout.shape().stored(stored)) > 0) {
            use(block + layout.params(layout_.layers - 1, h, stored, token),
                2 * oracle::bytes_of(support::to_oracle(layout_.dtype)));
          }
        }
      }
    }
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) slab_[i] = static_cast<char>(byte);
  }
}

std::vector<double> Case::stored_row(int sequence, int kv_head, bool value, int local) const {
  const oracle::Layout layout(support::to_oracle(spec_.config));
  const oracle::Side side = value && !layout_.shared_kv ? oracle::Side::value : oracle::Side::key;
  const char* block =
      pointers_[static_cast<std::size_t>(cu_blocks_[static_cast<std::size_t>(sequence)] + local / layout_.block_len)];
  const int layer = layout_.layers - 1;
  const int token = local % layout_.block_len;
  const oracle::Type type = support::to_oracle(layout_.dtype);
  const int bits = oracle::code_bits(layout.shape().stored(side));
  const char* data = block + layout.data(layer, kv_head, side, token);
  std::vector<double> row;
  if (bits == 0) {
    for (int d = 0; d < layout_.head_dim; ++d) row.push_back(oracle::load(type, data + d * oracle::bytes_of(type)));
  } else {
    const oracle::QuantRow stored = oracle::read_row(type, bits, static_cast<std::size_t>(layout_.head_dim), data,
                                                     block + layout.params(layer, kv_head, side, token));
    for (const int code : stored.codes) row.push_back(code * stored.scale + stored.zero);
  }
  if (value && layout_.shared_kv && spec_.v_dim > 0) {
    row.erase(row.begin(), row.begin() + spec_.v_offset);
    row.resize(static_cast<std::size_t>(spec_.v_dim));
  }
  return row;
}

std::vector<double> Case::query(int sequence, int token, int head) const {
  const oracle::Type type = support::to_oracle(layout_.dtype);
  const auto b = static_cast<std::size_t>(sequence);
  const std::int64_t row = std::int64_t{cu_q_[b] + token} * spec_.q_heads + head;
  std::vector<double> q;
  for (int d = 0; d < layout_.head_dim; ++d) {
    const std::int64_t element = row * (layout_.head_dim + spec_.head_gap) + d;
    q.push_back(oracle::load(type, aligned(q_) + element * oracle::bytes_of(type)));
  }
  return q;
}

std::vector<int> Case::seen_by(int sequence, int token, const std::vector<int>& owned) const {
  const auto b = static_cast<std::size_t>(sequence);
  if (!spec_.finished.empty() && spec_.finished[b] != 0) return {};
  const Lengths& l = spec_.lengths[b];
  const int history = l.k_len - l.q_len;
  if (spec_.tree_mask.empty()) {
    return oracle::visible_positions(owned, history + token, l.k_len, spec_.causal, spec_.window);
  }
  const std::uint32_t mask = spec_.tree_mask[static_cast<std::size_t>(cu_q_[b] + token)];
  std::vector<int> seen;
  for (const int t : owned) {
    const bool in_window = spec_.window == 0 || t > history + token - spec_.window;
    if (in_window && (t < history || (mask >> (t - history) & 1U) != 0)) seen.push_back(t);
  }
  return seen;
}

Case::Expected Case::expected() const {
  Expected e;
  const oracle::Type type = spec_.o_is_f32 ? oracle::Type::f32 : support::to_oracle(layout_.dtype);
  const int group = spec_.q_heads / layout_.kv_heads;
  oracle::AttentionOptions options;
  const double scale = spec_.scale > 0 ? static_cast<double>(spec_.scale) : 1 / std::sqrt(double(layout_.head_dim));
  options.softcap = static_cast<double>(spec_.softcap);
  for (int b = 0; b < static_cast<int>(spec_.lengths.size()); ++b) {
    const Lengths& l = spec_.lengths[static_cast<std::size_t>(b)];
    const std::vector<int> owned = oracle::owned_positions(spec_.cp.rank, spec_.cp.size, spec_.cp.interleave, l.k_len);
    std::vector<std::vector<std::vector<double>>> keys(static_cast<std::size_t>(layout_.kv_heads));
    std::vector<std::vector<std::vector<double>>> values(keys.size());
    for (int h = 0; h < layout_.kv_heads; ++h) {
      for (int local = 0; local < static_cast<int>(owned.size()); ++local) {
        keys[static_cast<std::size_t>(h)].push_back(stored_row(b, h, false, local));
        values[static_cast<std::size_t>(h)].push_back(stored_row(b, h, true, local));
        for (const double x : values[static_cast<std::size_t>(h)].back()) {
          e.largest_value = std::max(e.largest_value, std::abs(x));
        }
      }
    }
    for (int i = 0; i < l.q_len; ++i) {
      const std::vector<int> seen = seen_by(b, i, owned);
      const int position = l.k_len - l.q_len + i;
      options.scale = scale;
      if (spec_.log_n_length > 0 && position > spec_.log_n_length) {
        options.scale *= std::log(position) / std::log(spec_.log_n_length);
      }
      for (int h = 0; h < spec_.q_heads; ++h) {
        if (spec_.sinks && spec_.cp.rank == 0) options.sink = static_cast<double>(sinks_[static_cast<std::size_t>(h)]);
        std::vector<std::span<const double>> k;
        std::vector<std::span<const double>> v;
        for (const int t : seen) {
          const auto local = static_cast<std::size_t>(std::lower_bound(owned.begin(), owned.end(), t) - owned.begin());
          k.emplace_back(keys[static_cast<std::size_t>(h / group)][local]);
          v.emplace_back(values[static_cast<std::size_t>(h / group)][local]);
        }
        const std::vector<double> q = query(b, i, h);
        const auto dim = static_cast<std::size_t>(spec_.value_dim());
        const oracle::AttentionRow exact = oracle::attend(q, k, v, dim, options);
        const oracle::AttentionRow naive = oracle::attend_in_float(q, k, v, dim, options);
        for (std::size_t d = 0; d < dim; ++d) {
          e.exact.o.push_back(exact.o[d]);
          e.naive_o = std::max(e.naive_o, std::abs(oracle::round_to(type, naive.o[d]) - exact.o[d]));
        }
        e.exact.lse.push_back(exact.lse);
        if (std::isfinite(exact.lse)) {
          e.naive_lse = std::max(e.naive_lse, std::abs(naive.lse - exact.lse));
          e.largest_score = std::max(e.largest_score, std::abs(exact.lse));
        }
      }
    }
  }
  return e;
}

void expect_close(const CaseSpec& spec, const Result& got, const Case::Expected& want) {
  const oracle::Type type = spec.o_is_f32 ? oracle::Type::f32 : support::to_oracle(spec.config.dtype);
  constexpr double kFewRoundings = 0x1p-22;
  const double tolerance = 2 * want.naive_o + kFewRoundings * want.largest_value;
  const double lse_tolerance = 2 * want.naive_lse + kFewRoundings * (1 + want.largest_score);
  ASSERT_EQ(got.o.size(), want.exact.o.size());
  ASSERT_EQ(got.lse.size(), want.exact.lse.size());
  for (std::size_t i = 0; i < got.o.size(); ++i) {
    const double allowed = tolerance + oracle::half_ulp(type, want.exact.o[i]);
    ASSERT_LE(std::abs(got.o[i] - want.exact.o[i]), allowed)
        << describe(spec) << ": o[" << i << "] = " << got.o[i] << ", exact " << want.exact.o[i];
  }
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    if (std::isinf(want.exact.lse[i])) {
      ASSERT_EQ(got.lse[i], want.exact.lse[i]) << describe(spec);
      continue;
    }
    ASSERT_LE(std::abs(got.lse[i] - want.exact.lse[i]), lse_tolerance)
        << describe(spec) << ": lse[" << i << "] = " << got.lse[i] << ", exact " << want.exact.lse[i];
  }
}

}  // namespace ops
