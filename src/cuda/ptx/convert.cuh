#pragma once
// Pairs of T packed in a 32-bit register. Same bits as to_float(), from_float() and decode() of core/.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "pagedkv/core/half.h"

namespace pagedkv::cuda::ptx {

/// Two floats rounded to T; `low` in the low half.
template <class T>
__device__ __forceinline__ std::uint32_t pack(float low, float high);

template <>
__device__ __forceinline__ std::uint32_t pack<half_t>(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
template <>
__device__ __forceinline__ std::uint32_t pack<bfloat16_t>(float low, float high) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

template <class T>
__device__ __forceinline__ float2 unpack(std::uint32_t pair);

template <>
__device__ __forceinline__ float2 unpack<half_t>(std::uint32_t pair) {
  return __half22float2(core::bits_as<__half2>(pair));
}
template <>
__device__ __forceinline__ float2 unpack<bfloat16_t>(std::uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

/// Minimum and maximum of both halves; NaN if either argument is, -0 below +0.
template <class T>
__device__ __forceinline__ std::uint32_t min_nan_pair(std::uint32_t a, std::uint32_t b);
template <class T>
__device__ __forceinline__ std::uint32_t max_nan_pair(std::uint32_t a, std::uint32_t b);

template <>
__device__ __forceinline__ std::uint32_t min_nan_pair<half_t>(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("min.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
template <>
__device__ __forceinline__ std::uint32_t max_nan_pair<half_t>(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
template <>
__device__ __forceinline__ std::uint32_t min_nan_pair<bfloat16_t>(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("min.NaN.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}
template <>
__device__ __forceinline__ std::uint32_t max_nan_pair<bfloat16_t>(std::uint32_t a, std::uint32_t b) {
  std::uint32_t r;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
  return r;
}

/// Two codes, up to 255, in the 16-bit halves of `codes`, as T; exact.
template <class T>
__device__ __forceinline__ std::uint32_t codes_to_t(std::uint32_t codes);

template <>
__device__ __forceinline__ std::uint32_t codes_to_t<half_t>(std::uint32_t codes) {
  // 0x6400 is 1024, where one unit in the last place is 1.
  const auto biased = core::bits_as<__half2>(codes | 0x64006400u);
  return core::bits_as<std::uint32_t>(__hsub2(biased, core::bits_as<__half2>(0x64006400u)));
}
template <>
__device__ __forceinline__ std::uint32_t codes_to_t<bfloat16_t>(std::uint32_t codes) {
  // 0x4b000000 is 2^23, where one unit in the last place is 1; bf16 has a bit too few to do the same.
  const float low = __uint_as_float(0x4b000000u | (codes & 0xffffu)) - 8388608.0F;
  const float high = __uint_as_float(0x4b000000u | (codes >> 16)) - 8388608.0F;
  return pack<bfloat16_t>(low, high);
}

/// code * scale + zero on both halves, each rounded once.
template <class T>
__device__ __forceinline__ std::uint32_t decode_pair(std::uint32_t codes, std::uint32_t scale2, std::uint32_t zero2);

template <>
__device__ __forceinline__ std::uint32_t decode_pair<half_t>(std::uint32_t codes, std::uint32_t scale2,
                                                             std::uint32_t zero2) {
  return core::bits_as<std::uint32_t>(__hfma2(core::bits_as<__half2>(codes_to_t<half_t>(codes)),
                                              core::bits_as<__half2>(scale2), core::bits_as<__half2>(zero2)));
}
template <>
__device__ __forceinline__ std::uint32_t decode_pair<bfloat16_t>(std::uint32_t codes, std::uint32_t scale2,
                                                                 std::uint32_t zero2) {
  return core::bits_as<std::uint32_t>(__hfma2(core::bits_as<__nv_bfloat162>(codes_to_t<bfloat16_t>(codes)),
                                              core::bits_as<__nv_bfloat162>(scale2),
                                              core::bits_as<__nv_bfloat162>(zero2)));
}

}  // namespace pagedkv::cuda::ptx
