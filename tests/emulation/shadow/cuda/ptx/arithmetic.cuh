#pragma once
// Stands in for src/cuda/ptx/arithmetic.cuh.

#include <cmath>
#include <cstdint>

namespace pagedkv::cuda::ptx {

inline std::uint32_t and_or(std::uint32_t x, std::uint32_t mask, std::uint32_t bits) {
  return (x & mask) | bits;
}

/// Exact to the last bit, which the instruction is not.
inline float exp2_approx(float x) {
  constexpr float kLeastNormal = 0x1p-126F;
  const float y = std::exp2(std::fabs(x) < kLeastNormal ? 0.0F : x);
  return y < kLeastNormal ? 0.0F : y;
}

}  // namespace pagedkv::cuda::ptx
