#pragma once
// f16 as CUDA names it.

#include "pagedkv/core/half.h"
#include "pagedkv/core/quant.h"

struct __half {
  pagedkv::half_t value;
};
using half = __half;

inline float __half2float(__half x) {
  return pagedkv::core::to_float(x.value);
}
inline __half __float2half(float x) {
  return {pagedkv::core::from_float<pagedkv::half_t>(x)};
}
inline __half __ushort2half_rn(unsigned short x) {
  return __float2half(static_cast<float>(x));
}
/// a * b + c, rounded once.
inline __half __hfma(__half a, __half b, __half c) {
  return __float2half(pagedkv::core::detail::fma_odd(__half2float(a), __half2float(b), __half2float(c)));
}
