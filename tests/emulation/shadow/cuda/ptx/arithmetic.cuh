#pragma once
// Stands in for src/cuda/ptx/arithmetic.cuh.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace pagedkv::cuda::ptx {

inline std::uint32_t pack_saturated(std::uint32_t a, std::uint32_t b, std::uint32_t rest) {
  const auto byte = [](std::uint32_t x) {
    return static_cast<std::uint32_t>(std::clamp(static_cast<std::int32_t>(x), 0, 255));
  };
  return byte(a) | byte(b) << 8 | rest << 16;
}

/// `y`, or zero of its sign if it is subnormal.
inline float flushed(float y) {
  return std::fabs(y) < 0x1p-126F ? std::copysign(0.0F, y) : y;
}

// Exact to the last bit, which the instructions are not.

inline float reciprocal_approx(float x) {
  return flushed(1.0F / flushed(x));
}

inline float exp2_approx(float x) {
  return flushed(std::exp2(flushed(x)));
}

}  // namespace pagedkv::cuda::ptx
