#pragma once
// Stands in for src/cuda/ptx/arithmetic.cuh.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace pagedkv::cuda::ptx {

inline std::uint32_t and_or(std::uint32_t x, std::uint32_t mask, std::uint32_t bits) {
  return (x & mask) | bits;
}

inline std::uint32_t pack_saturated(std::uint32_t a, std::uint32_t b, std::uint32_t rest) {
  const auto byte = [](std::uint32_t x) {
    return static_cast<std::uint32_t>(std::clamp(static_cast<std::int32_t>(x), 0, 255));
  };
  return byte(a) | byte(b) << 8 | rest << 16;
}

/// Exact to the last bit, which the instruction is not.
inline float exp2_approx(float x) {
  constexpr float kLeastNormal = 0x1p-126F;
  const float y = std::exp2(std::fabs(x) < kLeastNormal ? 0.0F : x);
  return y < kLeastNormal ? 0.0F : y;
}

}  // namespace pagedkv::cuda::ptx
