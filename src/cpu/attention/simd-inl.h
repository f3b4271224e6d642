// Loads of stored elements as float32 vectors, and the functions softmax needs. Included once per SIMD target.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/attention/problem.h"
#include "hwy/highway.h"
#include "pagedkv/core/half.h"

#if defined(PAGEDKV_CPU_ATTENTION_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_SIMD_INL_H_
#undef PAGEDKV_CPU_ATTENTION_SIMD_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_SIMD_INL_H_
#endif

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;

inline constexpr std::size_t kLanes = hn::MaxLanes(DF());
inline constexpr std::size_t kInt4Group = 16;  ///< elements of int4 that are loaded in their stored order
static_assert(kLanes <= kInt4Group);

HWY_INLINE VF load_half(const char* p) {
  const DF df;
#if HWY_TARGET <= HWY_AVX2  // has F16C, as has every better target
  const hn::Rebind<hwy::float16_t, DF> dh;
  return hn::PromoteTo(df, hn::LoadU(dh, reinterpret_cast<const hwy::float16_t*>(p)));
#else
  // As core::to_float.
  const DU du;
  const hn::Rebind<std::uint16_t, DF> dh;
  const auto u = hn::PromoteTo(du, hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(p)));
  const auto sign = hn::ShiftLeft<16>(hn::And(u, hn::Set(du, 0x8000u)));
  const auto mag = hn::And(u, hn::Set(du, 0x7fffu));
  const auto shifted = hn::ShiftLeft<13>(mag);
  const auto finite = hn::BitCast(du, hn::Mul(hn::BitCast(df, shifted), hn::BitCast(df, hn::Set(du, 0x77800000u))));
  const auto special = hn::Or(shifted, hn::Set(du, 0x7f800000u));
  const auto bits = hn::IfThenElse(hn::Ge(mag, hn::Set(du, 0x7c00u)), special, finite);
  return hn::BitCast(df, hn::Or(sign, bits));
#endif
}

HWY_INLINE VF load_bfloat(const char* p) {
  const DU du;
  const hn::Rebind<std::uint16_t, DF> dh;
  const auto u = hn::PromoteTo(du, hn::LoadU(dh, reinterpret_cast<const std::uint16_t*>(p)));
  return hn::BitCast(DF(), hn::ShiftLeft<16>(u));
}

/// Codes of int8 less 128.
HWY_INLINE VF load_int8(const char* p) {
  const hn::Rebind<std::uint8_t, DF> d8;
  const hn::Rebind<std::int8_t, DF> ds8;
  const auto u = hn::Xor(hn::LoadU(d8, reinterpret_cast<const std::uint8_t*>(p)), hn::Set(d8, 0x80));
  return hn::ConvertTo(DF(), hn::PromoteTo(DI(), hn::BitCast(ds8, u)));
}

/// Left shift that brings the code of element j of an int4 group (two words) to the top, in the order of int4_order().
alignas(64) inline constexpr std::int32_t kInt4Shift[kInt4Group] = {28, 28, 24, 24, 20, 20, 16, 16,
                                                                    12, 12, 8,  8,  4,  4,  0,  0};

/// Codes of int4 less 8: vector `vec` of a row, in the order of int4_order(). A pair of words stands in all pairs of
/// lanes; xor with 8 turns a code into code - 8 as a signed nibble.
HWY_INLINE VF load_int4(const char* row, std::size_t vec) {
  constexpr std::size_t kVecs = kInt4Group / kLanes;
  const std::size_t group = vec / kVecs;
  const std::size_t part = vec % kVecs;
#if HWY_TARGET == HWY_SCALAR
  std::int32_t word;
  std::memcpy(&word, row + 8 * group + 4 * (part % 2), 4);
  const DI di;
  const auto words = hn::Set(di, word);
#else
  std::int64_t pair;
  std::memcpy(&pair, row + 8 * group, 8);
  const DI di;
  const auto words = hn::BitCast(di, hn::Set(hn::Repartition<std::int64_t, DF>(), pair));
#endif
  const auto signed_codes = hn::Xor(words, hn::Set(di, static_cast<std::int32_t>(0x88888888u)));
  const auto top = hn::Shl(signed_codes, hn::Load(di, kInt4Shift + part * kLanes));
  return hn::ConvertTo(DF(), hn::ShiftRight<28>(top));
}

/// Vector `vec` (kLanes elements) of a stored row. Codes are less half their range, see centred_zero().
template <Stored S>
HWY_INLINE VF load(const char* row, std::size_t vec) {
  if constexpr (S == Stored::f32) {
    return hn::LoadU(DF(), reinterpret_cast<const float*>(row) + vec * kLanes);
  } else if constexpr (S == Stored::f16) {
    return load_half(row + vec * (2 * kLanes));
  } else if constexpr (S == Stored::bf16) {
    return load_bfloat(row + vec * (2 * kLanes));
  } else if constexpr (S == Stored::int8) {
    return load_int8(row + vec * kLanes);
  } else {
    return load_int4(row, vec);
  }
}

/// The lines of `bytes` bytes from `from` on, to the second-level cache or (kFirst) to the first.
template <bool kFirst = false>
HWY_INLINE void prefetch(const char* from, std::size_t bytes) {
  constexpr std::size_t kLine = 64;
  for (std::size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(from + i, 0, kFirst ? 3 : 2);
}

/// Rows to bring near.
struct Rows {
  const char* const* rows = nullptr;
  std::int32_t count = 0;
  std::size_t bytes = 0;  ///< of a row
};

/// Rows to bring near while others are worked on. Without it decode waits for memory, since blocks are short and pages
/// change often.
struct Ahead {
  Rows second;  ///< to the second-level cache: the first would not hold what is in use and these
  Rows first;   ///< to the first-level cache: codes, which are few bytes for much work
};

/// Brings the rows near, evenly over steps * passes calls of step(): a core has only so many misses under way.
class Prefetcher {
 public:
  HWY_INLINE Prefetcher(const Ahead& ahead, std::size_t steps, std::size_t passes)
      : second_(ahead.second), first_(ahead.first), steps_(steps * passes) {}

  HWY_INLINE void step() {
    second_.step<false>(steps_);
    first_.step<true>(steps_);
  }

 private:
  struct Stream {
    const char* const* row;
    std::size_t bytes;
    std::size_t count;
    std::size_t due = 0;

    explicit HWY_INLINE Stream(const Rows& r) : row(r.rows), bytes(r.bytes), count(static_cast<std::size_t>(r.count)) {}

    template <bool kFirst>
    HWY_INLINE void step(std::size_t steps) {
      for (due += count; due >= steps; due -= steps) prefetch<kFirst>(*row++, bytes);
    }
  };

  Stream second_;
  Stream first_;
  std::size_t steps_;
};

/// 2^x for x <= 0, relative error below 1e-7; exactly 1 at 0; 0 below -126.5; NaN stays NaN.
HWY_INLINE VF exp2_nonpositive(VF x) {
  const DF df;
  const DU du;
  const VF lowest = hn::Set(df, -127.0F);
  x = hn::IfThenElse(hn::Lt(x, lowest), lowest, x);
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  const VF magic = hn::Set(df, 12582912.0F);
  const VF rounded = hn::Add(x, magic);
  const VF f = hn::Sub(x, hn::Sub(rounded, magic));
  // 1 + f P(f), P fitted for the least largest relative error on [-1/2, 1/2]: 1.6e-8 before float32 rounding.
  VF p = hn::Set(df, 1.5353362e-04F);
  p = hn::MulAdd(p, f, hn::Set(df, 1.3398874e-03F));
  p = hn::MulAdd(p, f, hn::Set(df, 9.618437e-03F));
  p = hn::MulAdd(p, f, hn::Set(df, 5.5503324e-02F));
  p = hn::MulAdd(p, f, hn::Set(df, 2.4022648e-01F));
  p = hn::MulAdd(p, f, hn::Set(df, 6.931472e-01F));
  p = hn::MulAdd(p, f, hn::Set(df, 1.0F));
  const auto power = hn::Add(hn::ShiftLeft<23>(hn::BitCast(du, rounded)), hn::Set(du, 0x3f800000u));
  return hn::Mul(p, hn::BitCast(df, power));
}

HWY_INLINE float exp2_nonpositive(float x) {
  return hn::GetLane(exp2_nonpositive(hn::Set(DF(), x)));
}

/// tanh(x), relative error about 1e-7. NaN stays NaN.
HWY_INLINE VF tanh(VF x) {
  const DF df;
  const VF one = hn::Set(df, 1.0F);
  const VF magnitude = hn::Abs(x);
  // x + x^3 P(x^2), P fitted for the least largest relative error on [0, 0.625]: 4.4e-9.
  const VF z = hn::Mul(x, x);
  VF p = hn::Set(df, -5.704987e-03F);
  p = hn::MulAdd(p, z, hn::Set(df, 2.0639088e-02F));
  p = hn::MulAdd(p, z, hn::Set(df, -5.3739715e-02F));
  p = hn::MulAdd(p, z, hn::Set(df, 1.3331442e-01F));
  p = hn::MulAdd(p, z, hn::Set(df, -3.333328e-01F));
  const VF small = hn::MulAdd(hn::Mul(p, z), x, x);
  // (1 - e) / (1 + e) with e = exp(-2 |x|).
  const VF e = exp2_nonpositive(hn::Mul(magnitude, hn::Set(df, -2.8853900817779268F)));
  const VF large = hn::CopySign(hn::Div(hn::Sub(one, e), hn::Add(one, e)), x);
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(df, 0.625F)), small, large);
}

/// Sum of the lanes.
HWY_INLINE float sum(VF v) {
  return hn::GetLane(hn::SumOfLanes(DF(), v));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_SIMD_INL_H_
