#pragma once
// Host + device function qualifiers and float operations whose rounding no compiler flag can change.

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define PAGEDKV_HD __host__ __device__ __forceinline__
#define PAGEDKV_HD_CONSTEXPR __host__ __device__ constexpr
#else
#define PAGEDKV_HD inline
#define PAGEDKV_HD_CONSTEXPR constexpr
#endif

namespace pagedkv::core {

/// Reinterprets the bits of a value (std::bit_cast, which device code cannot call).
template <class To, class From>
PAGEDKV_HD To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

#if !defined(__CUDA_ARCH__)
namespace detail {
// g++, clang and nvcc's host pass may contract a*b+c into an fma, and these inline functions are also compiled with the
// flags of whoever includes them. Passing the product through an empty asm keeps its rounding without costing an
// instruction.
template <class F>
inline F keep_rounding(F x) {
#if defined(__x86_64__)
  asm("" : "+x"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#else
  volatile F y = x;
  x = y;
#endif
  return x;
}
}  // namespace detail
#endif

// Each of these is one IEEE operation rounded to nearest even, with subnormals kept, on host and device alike.

PAGEDKV_HD float mul_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return detail::keep_rounding(a * b);
#endif
}
PAGEDKV_HD float add_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return detail::keep_rounding(a + b);
#endif
}
PAGEDKV_HD float sub_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(a, b);
#else
  return detail::keep_rounding(a - b);
#endif
}
PAGEDKV_HD float fma_rn(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}
PAGEDKV_HD float div_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return detail::keep_rounding(a / b);
#endif
}
PAGEDKV_HD float rint_rn(float a) {
#if defined(__CUDA_ARCH__)
  return rintf(a);
#else
  return std::nearbyint(a);
#endif
}
PAGEDKV_HD double mul_rn(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return detail::keep_rounding(a * b);
#endif
}
PAGEDKV_HD double add_rn(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dadd_rn(a, b);
#else
  return detail::keep_rounding(a + b);
#endif
}
PAGEDKV_HD double fma_rn(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}
PAGEDKV_HD double div_rn(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __ddiv_rn(a, b);
#else
  return detail::keep_rounding(a / b);
#endif
}

/// Minimum and maximum that return NaN if either argument is NaN, and order -0 below +0.
PAGEDKV_HD float min_nan(float a, float b) {
#if defined(__CUDA_ARCH__)
  float r;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  if (a != a) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;  // b if b is NaN
#endif
}
PAGEDKV_HD float max_nan(float a, float b) {
#if defined(__CUDA_ARCH__)
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  if (a != a) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;  // b if b is NaN
#endif
}

}  // namespace pagedkv::core
