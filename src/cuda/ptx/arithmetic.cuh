#pragma once
// Arithmetic that CUDA C++ has no function for: one instruction per function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

/// (x & mask) | bits.
__device__ __forceinline__ std::uint32_t and_or(std::uint32_t x, std::uint32_t mask, std::uint32_t bits) {
  std::uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(x), "r"(mask), "r"(bits));
  return r;
}

/// 2^x to about 2 ulp; subnormal x and results count as zero.
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace pagedkv::cuda::ptx
