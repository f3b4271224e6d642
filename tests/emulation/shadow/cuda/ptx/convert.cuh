#pragma once
// Stands in for src/cuda/ptx/convert.cuh.

#include <cstdint>

#include "emulator/vector_types.h"
#include "pagedkv/core/half.h"
#include "pagedkv/core/hd.h"
#include "pagedkv/core/quant.h"

namespace pagedkv::cuda::ptx {
namespace detail {

template <class T>
T half_of(std::uint32_t pair, int i) {
  return {static_cast<std::uint16_t>(pair >> (16 * i))};
}
template <class T>
std::uint32_t join(T low, T high) {
  return std::uint32_t{high.bits} << 16 | low.bits;
}

}  // namespace detail

template <class T>
std::uint32_t pack(float low, float high) {
  return detail::join(core::from_float<T>(low), core::from_float<T>(high));
}

template <class T>
float2 unpack(std::uint32_t pair) {
  return {core::to_float(detail::half_of<T>(pair, 0)), core::to_float(detail::half_of<T>(pair, 1))};
}

template <class T>
std::uint32_t min_nan_pair(std::uint32_t a, std::uint32_t b) {
  const float2 x = unpack<T>(a);
  const float2 y = unpack<T>(b);
  return pack<T>(core::min_nan(x.x, y.x), core::min_nan(x.y, y.y));
}
template <class T>
std::uint32_t max_nan_pair(std::uint32_t a, std::uint32_t b) {
  const float2 x = unpack<T>(a);
  const float2 y = unpack<T>(b);
  return pack<T>(core::max_nan(x.x, y.x), core::max_nan(x.y, y.y));
}

template <class T>
std::uint32_t codes_to_t(std::uint32_t codes) {
  return pack<T>(static_cast<float>(codes & 0xffffu), static_cast<float>(codes >> 16));
}

template <class T>
std::uint32_t decode_pair(std::uint32_t codes, std::uint32_t scale2, std::uint32_t zero2) {
  const auto one = [&](int i) {
    const core::QuantParam<T> param{detail::half_of<T>(scale2, i), detail::half_of<T>(zero2, i)};
    return core::decode<T>(codes >> (16 * i) & 0xffffu, param);
  };
  return detail::join(one(0), one(1));
}

}  // namespace pagedkv::cuda::ptx
