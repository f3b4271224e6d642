#pragma once
// The int8 and int4 row codecs. This file is the definition; faster versions elsewhere must give the same bits.
// docs/quant.md.

#include <cstdint>

#include "pagedkv/core/half.h"
#include "pagedkv/core/hd.h"

namespace pagedkv::core {

/// Parameters of one row (one token of one head, K or V) as stored: x ~ code * scale + zero.
template <class T>
struct QuantParam {
  T scale;
  T zero;
};

/// Largest code of an n-bit codec.
template <int Bits>
inline constexpr float kMaxCode = static_cast<float>((1 << Bits) - 1);

/// 1 / (2^n - 1), rounded to float32.
template <int Bits>
inline constexpr float kStepFactor = 1.0F / kMaxCode<Bits>;

/// Parameters of a row from its minimum and maximum (NaN if the row has a NaN). One rounding to T at the end.
///
/// * constant row: scale 0, zero = the value (a negative zero is stored as +0)
/// * a row with NaN or infinity, or whose minimum or step is not finite in T: scale 0, zero NaN, so that it reads as
/// NaN
/// * a step too small for 1/step to be finite in float32 (or for T): scale 0, so that it reads as its minimum
template <class T, int Bits>
PAGEDKV_HD QuantParam<T> quant_param(float mn, float mx) {
  const T zero = from_float<T>(add_rn(mn, 0.0F));
  const T scale = from_float<T>(mul_rn(sub_rn(mx, mn), kStepFactor<Bits>));
  const float s = to_float(scale);
  const float z = to_float(zero);
  // x - x is 0 for finite x and NaN otherwise. mx can be infinite only if s is.
  if (!(sub_rn(z, z) == 0.0F && sub_rn(s, s) == 0.0F)) {
    return {from_float<T>(0.0F), from_float<T>(bits_as<float>(0x7fffffffu))};
  }
  if (s < bits_as<float>(0x00200001u)) return {from_float<T>(0.0F), zero};  // 1/s would overflow
  return {scale, zero};
}

/// What encoding a row needs: code = rne(clamp((x - zero) * inv)).
struct RowEncoder {
  float zero;
  float inv;  ///< 1 / stored scale (the only division of a row), or 0 if the scale is 0
};

template <class T>
PAGEDKV_HD RowEncoder row_encoder(QuantParam<T> p) {
  const float s = to_float(p.scale);
  return {to_float(p.zero), s == 0.0F ? 0.0F : div_rn(1.0F, s)};
}

/// 1.5 * 2^23: adding it rounds to an integer, which then stands in the low mantissa bits.
inline constexpr float kRoundMagic = 12582912.0F;

/// kRoundMagic + code of one element before clamping: (x - zero) rounded once, then times inv rounded once to an
/// integer by one fma. Never decreases with x.
PAGEDKV_HD float encode_unclamped(float x, RowEncoder e) {
  return fma_rn(sub_rn(x, e.zero), e.inv, kRoundMagic);
}

/// kRoundMagic + code of one element. NaN (only in rows that read as NaN anyway) gives code 0.
template <int Bits>
PAGEDKV_HD float encode_magic(float x, RowEncoder e) {
  float r = encode_unclamped(x, e);
  r = r > kRoundMagic ? r : kRoundMagic;
  return r < kRoundMagic + kMaxCode<Bits> ? r : kRoundMagic + kMaxCode<Bits>;
}

/// Code of one element.
template <int Bits>
PAGEDKV_HD std::uint32_t encode(float x, RowEncoder e) {
  return bits_as<std::uint32_t>(encode_magic<Bits>(x, e)) & ((1u << Bits) - 1u);
}

/// Value of a code in float32: one fma. Attention uses this.
PAGEDKV_HD float decode_f32(std::uint32_t code, float scale, float zero) {
  return fma_rn(static_cast<float>(code), scale, zero);
}

/// Value of a code as T: fma(code, scale, zero) rounded once to T, which is what a T-typed hardware fma gives.
template <class T>
PAGEDKV_HD T decode(std::uint32_t code, QuantParam<T> p);

template <>
PAGEDKV_HD float decode<float>(std::uint32_t code, QuantParam<float> p) {
  return from_float<float>(decode_f32(code, p.scale, p.zero));
}

namespace detail {

/// code * scale + zero rounded to float32 by round-to-odd, so that rounding it again to T (11 or 8 bits) is correct.
PAGEDKV_HD float fma_odd(float code, float scale, float zero) {
  float p = mul_rn(code, scale);  // exact: 8 + 11 bits
  float unit = 1.0F;
  if (sub_rn(p, p) != 0.0F) {  // only bf16 can get here, and zero may bring the sum back into range
    // A product of finite numbers is finite, however large, so an infinite zero decides.
    if (sub_rn(scale, scale) == 0.0F && sub_rn(zero, zero) != 0.0F) return zero;
    p = mul_rn(code, mul_rn(scale, 0.25F));
    zero = mul_rn(zero, 0.25F);
    unit = 4.0F;
  }
  const float s = add_rn(p, zero);
  // Error of the sum (Knuth's TwoSum), exact.
  const float b = sub_rn(s, p);
  const float err = add_rn(sub_rn(p, sub_rn(s, b)), sub_rn(zero, b));
  auto u = bits_as<std::uint32_t>(s);
  if (sub_rn(s, s) == 0.0F && err != 0.0F && (u & 1u) == 0u) {
    // Inexact and even: the odd neighbour on the error's side. Away from zero is one up in the bits.
    u += ((err > 0.0F) == (s > 0.0F)) ? 1u : 0xffffffffu;
  }
  return mul_rn(bits_as<float>(u), unit);
}

}  // namespace detail

template <>
PAGEDKV_HD half_t decode<half_t>(std::uint32_t code, QuantParam<half_t> p) {
#if defined(__CUDA_ARCH__)
  return bits_as<half_t>(
      __hfma(__ushort2half_rn(static_cast<unsigned short>(code)), bits_as<__half>(p.scale), bits_as<__half>(p.zero)));
#else
  return from_float<half_t>(detail::fma_odd(static_cast<float>(code), to_float(p.scale), to_float(p.zero)));
#endif
}

template <>
PAGEDKV_HD bfloat16_t decode<bfloat16_t>(std::uint32_t code, QuantParam<bfloat16_t> p) {
#if defined(__CUDA_ARCH__)
  return bits_as<bfloat16_t>(__hfma(__float2bfloat16_rn(static_cast<float>(code)), bits_as<__nv_bfloat16>(p.scale),
                                    bits_as<__nv_bfloat16>(p.zero)));
#else
  return from_float<bfloat16_t>(detail::fma_odd(static_cast<float>(code), to_float(p.scale), to_float(p.zero)));
#endif
}

/// Bit position of element i of 8 inside its little-endian 32-bit word of int4 codes: nibbles e0 e2 e4 e6 e1 e3 e5 e7.
PAGEDKV_HD_CONSTEXPR int int4_shift(int i) {
  return 4 * (i / 2) + 16 * (i % 2);
}

/// Packs 8 codes, element order, into the word stored for them.
PAGEDKV_HD std::uint32_t pack_int4(const std::uint32_t (&code)[8]) {
  std::uint32_t w = 0;
  for (int i = 0; i < 8; ++i) w |= code[i] << int4_shift(i);
  return w;
}

PAGEDKV_HD std::uint32_t unpack_int4(std::uint32_t word, int i) {
  return (word >> int4_shift(i)) & 0xfu;
}

}  // namespace pagedkv::core
