// Queries in, results out. Included once per SIMD target.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/attention/problem.h"
#include "cpu/attention/workspace.h"
#include "hwy/highway.h"
#include "pagedkv/core/half.h"

#if defined(PAGEDKV_CPU_ATTENTION_OUTPUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_OUTPUT_INL_H_
#undef PAGEDKV_CPU_ATTENTION_OUTPUT_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_OUTPUT_INL_H_
#endif

#include "cpu/attention/integer-inl.h"
#include "cpu/attention/simd-inl.h"
#include "cpu/attention/softmax-inl.h"

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

/// Element of its group of kInt4Group that load_int4() puts at `place`.
HWY_INLINE std::size_t int4_order(std::size_t place) {
  const std::size_t nibble = place / 2;
  const std::size_t in_word = nibble < 4 ? 2 * nibble : 2 * nibble - 7;
  return 8 * (place % 2) + in_word;
}

/// Index of element 0 of row (sequence b, token i, query head).
HWY_INLINE std::int64_t row_offset(const TokenStrides& s, const std::int32_t* cu, std::int32_t b, std::int32_t i,
                                   std::int32_t head) {
  return s.batch * b + s.start * cu[b] + s.token * i + s.head * head;
}

/// Row r of q as float32, scaled, in the order of K's elements.
template <Stored T>
HWY_INLINE void load_query(const Problem& p, float q_scale, const char* from, const Scratch& s, std::int32_t r) {
  const DF df;
  const VF scale = hn::Set(df, q_scale);
  float* q = s.q + std::ptrdiff_t{r} * p.head_dim;
  VF total = hn::Zero(df);
  for (std::size_t c = 0; c < static_cast<std::size_t>(p.head_dim) / kLanes; ++c) {
    const VF x = hn::Mul(load<T>(from, c), scale);
    total = hn::Add(total, x);
    hn::Store(x, df, q + c * kLanes);
  }
  s.q_sum[r] = sum(total);
  if (p.k == Stored::int4) {
    float group[kInt4Group];
    for (float* g = q; g < q + p.head_dim; g += kInt4Group) {
      std::copy_n(g, kInt4Group, group);
      for (std::size_t i = 0; i < kInt4Group; ++i) g[i] = group[int4_order(i)];
    }
  }
}

#if PAGEDKV_CPU_ATTENTION_INTEGERS
/// Row r of q as digits, in the order of turned keys.
template <Stored T>
HWY_INLINE void load_query_digits(const Problem& p, float q_scale, const char* from, const Scratch& s, std::int32_t r) {
  const DF df;
  const auto dim = static_cast<std::size_t>(p.head_dim);
  const VF scale = hn::Set(df, q_scale);
  float* q = s.scores;  // not in use yet, and as long as any head_dim
  VF largest = hn::Zero(df);
  VF check = hn::Zero(df);
  for (std::size_t c = 0; c < dim / kLanes; ++c) {
    const VF x = hn::Mul(load<T>(from, c), scale);
    largest = hn::Max(largest, hn::Abs(x));
    check = hn::MulAdd(x, hn::Zero(df), check);  // NaN from NaN or infinity
    hn::Store(x, df, q + c * kLanes);
  }
  const FixedScale fixed = fixed_scale(hn::GetLane(hn::MaxOfLanes(df, largest)), sum(check) == 0.0F);
  if (p.k == Stored::int4) {
    float group[8];
    for (float* g = q; g < q + dim; g += 8) {
      std::copy_n(g, 8, group);
      for (std::size_t i = 0; i < 8; ++i) g[i] = group[turned_channel<Stored::int4>(i)];
    }
  }
  const DI di;
  std::uint8_t* to = query_digits(s.q, dim, static_cast<std::size_t>(r));
  VI total = hn::Zero(di);  // 64 numbers below 2^23 in a lane at most
  for (std::size_t c = 0; c < dim; c += kLanes) {
    const VI x = to_fixed(hn::Load(df, q + c), hn::Set(df, fixed.to_fixed));
    total = hn::Add(total, x);
    std::uint8_t digits[kDigits][kLanes];
    store_digits(x, digits[0], kLanes);
    for (std::size_t quad = 0; quad < kLanes / 4; ++quad, to += kQueryQuad) {
      for (std::size_t i = 0; i < kDigits; ++i) std::memcpy(to + i * kQueryDigit, digits[i] + 4 * quad, 4);
    }
  }
  alignas(64) std::int32_t lanes[kLanes];
  hn::Store(total, di, lanes);
  std::int64_t all = 0;
  for (const std::int32_t x : lanes) all += x;
  s.q_unit[r] = fixed.unit;
  s.q_sum[r] = static_cast<float>(static_cast<double>(all) * static_cast<double>(fixed.unit));
}
#endif

template <Stored T>
HWY_INLINE void load_any_query(const Problem& p, float q_scale, const char* from, const Scratch& s, std::int32_t r) {
#if PAGEDKV_CPU_ATTENTION_INTEGERS
  if (in_integers(p.k)) return load_query_digits<T>(p, q_scale, from, s, r);
#endif
  load_query<T>(p, q_scale, from, s, r);
}

/// The item's rows of q.
HWY_INLINE void load_queries(const Problem& p, const Item& item, const Scratch& s) {
  const AttentionArgs& a = *p.args;
  const std::int64_t bytes = dtype_bytes(a.layout.dtype);
  for (std::int32_t r = 0; r < item.rows(); ++r) {
    const std::int32_t head = item.kv_head * p.group + item.head + r % item.heads;
    const std::int32_t token = item.token + r / item.heads;
    const float q_scale = p.query_scale(item.batch, token);
    const std::int64_t offset = row_offset(a.q_strides, a.cu_q, item.batch, token, head);
    const char* from = static_cast<const char*>(a.q) + offset * bytes;
    switch (p.q) {
      case Stored::f32:
        load_any_query<Stored::f32>(p, q_scale, from, s, r);
        break;
      case Stored::f16:
        load_any_query<Stored::f16>(p, q_scale, from, s, r);
        break;
      default:
        load_any_query<Stored::bf16>(p, q_scale, from, s, r);
        break;
    }
  }
}

/// Adds the sink to row r's totals: a key with a score but without a value.
HWY_INLINE void add_sink(const Problem& p, const Scratch& s, std::int32_t r, float sink) {
  const float score = sink * 1.44269504F;  // log2(e)
  const float new_max = std::max(s.total_max[r], score);
  if (new_max == kMinusInfinity) return;
  const float keep = exp2_nonpositive(s.total_max[r] - new_max);
  s.total_max[r] = new_max;
  s.total_sum[r] = s.total_sum[r] * keep + exp2_nonpositive(score - new_max);
  if (keep != 1.0F) multiply(s.total_o + std::ptrdiff_t{r} * p.v_dim, static_cast<std::size_t>(p.v_dim), keep);
}

/// x as T. NaN becomes the one that core::from_float() gives.
HWY_INLINE void store(VF x, float* to) {
  hn::StoreU(x, DF(), to);
}
HWY_INLINE void store(VF x, half_t* to) {
#if HWY_TARGET <= HWY_AVX2  // has F16C, as has every better target
  const hn::Rebind<hwy::float16_t, DF> dh;
  hn::StoreU(hn::DemoteTo(dh, x), dh, reinterpret_cast<hwy::float16_t*>(to));
#else
  alignas(64) float lanes[kLanes];
  hn::Store(x, DF(), lanes);
  for (std::size_t i = 0; i < kLanes; ++i) to[i] = core::from_float<half_t>(lanes[i]);
#endif
}
HWY_INLINE void store(VF x, bfloat16_t* to) {
  alignas(64) float lanes[kLanes];
  hn::Store(x, DF(), lanes);
  for (std::size_t i = 0; i < kLanes; ++i) to[i] = core::from_float<bfloat16_t>(lanes[i]);
}

/// Row r's totals, divided by `divisor`, into o as T. Element order is V's in x and natural in o.
template <class T>
HWY_INLINE void store_row(const Problem& p, float* x, float divisor, T* o) {
  const DF df;
  const VF all = hn::Set(df, divisor);
  const VF nan = hn::BitCast(df, hn::Set(DU(), 0x7fffffffu));
  for (std::size_t i = 0; i < static_cast<std::size_t>(p.v_dim); i += kLanes) {
    // The sign of a zero may depend on tokens of weight 0; adding +0 removes it.
    const VF y = hn::Add(hn::Div(hn::Load(df, x + i), all), hn::Zero(df));
    hn::Store(hn::IfThenElse(hn::Eq(y, y), y, nan), df, x + i);
  }
  if (p.v == Stored::int4 && !in_integers(p.v)) {
    float group[kInt4Group];
    for (float* g = x; g < x + p.v_dim; g += kInt4Group) {
      std::copy_n(g, kInt4Group, group);
      for (std::size_t i = 0; i < kInt4Group; ++i) g[int4_order(i)] = group[i];
    }
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(p.v_dim); i += kLanes) store(hn::Load(df, x + i), o + i);
}

/// Normalised o and, if asked for, lse of the item's rows, from their totals.
HWY_INLINE void store_outputs(const Problem& p, const Item& item, const Scratch& s) {
  const AttentionArgs& a = *p.args;
  for (std::int32_t r = 0; r < item.rows(); ++r) {
    const std::int32_t token = item.token + r / item.heads;
    const std::int32_t head = item.kv_head * p.group + item.head + r % item.heads;
    if (p.sinks) add_sink(p, s, r, a.sinks[head]);
    const float max = s.total_max[r];
    const float total = s.total_sum[r];
    const bool nothing = max == kMinusInfinity && total == 0.0F;
    const float divisor = nothing ? 1.0F : total;
    float* x = s.total_o + std::ptrdiff_t{r} * p.v_dim;
    const std::int64_t offset = row_offset(a.o_strides, a.cu_q, item.batch, token, head);
    if (a.o_is_f32 || a.layout.dtype == DType::f32) {
      store_row(p, x, divisor, static_cast<float*>(a.o) + offset);
    } else if (a.layout.dtype == DType::f16) {
      store_row(p, x, divisor, static_cast<half_t*>(a.o) + offset);
    } else {
      store_row(p, x, divisor, static_cast<bfloat16_t*>(a.o) + offset);
    }
    if (a.lse != nullptr) {
      constexpr double kLn2 = 0.69314718055994531;
      const double lse = static_cast<double>(max) * kLn2 + std::log(static_cast<double>(total));
      a.lse[(std::int64_t{a.cu_q[item.batch]} + token) * a.q_heads + head] =
          nothing ? kMinusInfinity : core::from_float<float>(static_cast<float>(lse));
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_OUTPUT_INL_H_
