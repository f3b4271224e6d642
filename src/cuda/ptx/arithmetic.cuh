#pragma once
// Arithmetic that CUDA C++ has no function for: one instruction per function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

/// a and b, as signed integers clamped to 0 .. 255, in the low two bytes, a the lower; `rest`'s low two bytes above.
__device__ __forceinline__ std::uint32_t pack_saturated(std::uint32_t a, std::uint32_t b, std::uint32_t rest) {
  std::uint32_t r;
  asm("cvt.pack.sat.u8.s32.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(b), "r"(a), "r"(rest));
  return r;
}

/// 1 / x to 1 ulp; subnormal x and results count as zero.
__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// 2^x to about 2 ulp; subnormal x and results count as zero.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace pagedkv::cuda::ptx
