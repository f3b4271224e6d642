#pragma once
// f16 and bf16 as storage types, with conversions that give the same bits on every host compiler and on the device.

#include <cstdint>

#include "pagedkv/core/hd.h"
#include "pagedkv/types.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace pagedkv {

/// IEEE binary16 bits.
struct half_t {
  std::uint16_t bits;
  friend constexpr bool operator==(half_t, half_t) = default;
};

/// bfloat16 bits: the upper half of a binary32.
struct bfloat16_t {
  std::uint16_t bits;
  friend constexpr bool operator==(bfloat16_t, bfloat16_t) = default;
};

template <class T>
inline constexpr DType dtype_of = DType::f32;
template <>
inline constexpr DType dtype_of<half_t> = DType::f16;
template <>
inline constexpr DType dtype_of<bfloat16_t> = DType::bf16;

namespace core {

PAGEDKV_HD float to_float(float x) {
  return x;
}

PAGEDKV_HD float to_float(bfloat16_t x) {
  return bits_as<float>(static_cast<std::uint32_t>(x.bits) << 16);
}

PAGEDKV_HD float to_float(half_t x) {
#if defined(__CUDA_ARCH__)
  return __half2float(bits_as<__half>(x));
#else
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  const std::uint32_t mag = x.bits & 0x7fffu;
  // Moving the 15 magnitude bits up scales the value by 2^-112; a multiplication by 2^112 is exact and normalises
  // subnormals.
  const float scaled = mul_rn(bits_as<float>(mag << 13), bits_as<float>(0x77800000u));
  const std::uint32_t finite = bits_as<std::uint32_t>(scaled);
  const std::uint32_t special = 0x7f800000u | (mag << 13);
  return bits_as<float>(sign | (mag >= 0x7c00u ? special : finite));
#endif
}

/// Rounds to nearest even; overflow gives infinity, every NaN gives the positive NaN with all mantissa bits set.
template <class T>
PAGEDKV_HD T from_float(float x);

template <>
PAGEDKV_HD float from_float<float>(float x) {
  return x == x ? x : bits_as<float>(0x7fffffffu);
}

template <>
PAGEDKV_HD bfloat16_t from_float<bfloat16_t>(float x) {
#if defined(__CUDA_ARCH__)
  return bits_as<bfloat16_t>(__float2bfloat16_rn(x));
#else
  const auto u = bits_as<std::uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fffu};
  return {static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
#endif
}

template <>
PAGEDKV_HD half_t from_float<half_t>(float x) {
#if defined(__CUDA_ARCH__)
  return bits_as<half_t>(__float2half_rn(x));
#else
  const auto u = bits_as<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t mag = u & 0x7fffffffu;
  if (mag > 0x7f800000u) return {0x7fffu};
  if (mag >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // 65520 and above
  if (mag < 0x38800000u) {
    // Below 2^-14: adding 0.5 puts the last bit of the sum at 2^-24, the step of f16 subnormals.
    const auto sum = bits_as<std::uint32_t>(add_rn(bits_as<float>(mag), 0.5F));
    return {static_cast<std::uint16_t>(sign | (sum - 0x3f000000u))};
  }
  const std::uint32_t rounded = mag + 0xfffu + ((mag >> 13) & 1u);
  return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
#endif
}

}  // namespace core
}  // namespace pagedkv
