// Loads, stores and loops that the SIMD row loops share. Per-target include: no pragma once, but a guard that Highway
// flips for every target.

#if defined(PAGEDKV_CPU_ROWS_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ROWS_SIMD_INL_H
#undef PAGEDKV_CPU_ROWS_SIMD_INL_H
#else
#define PAGEDKV_CPU_ROWS_SIMD_INL_H
#endif

#include <hwy/highway.h>

#include <cstring>

#include "pagedkv/core/half.h"

#if PAGEDKV_SIMD_PASS
HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kMaxDim = 1024;

using FloatTag = hn::ScalableTag<float>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
static_assert(kLanes <= 16, "rows are multiples of 16 elements");

template <class DF>
hn::Vec<DF> load(DF df, const float* p) {
  return hn::LoadU(df, p);
}
template <class DF>
hn::Vec<DF> load(DF df, const half_t* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}
template <class DF>
hn::Vec<DF> load(DF df, const bfloat16_t* p) {
  const hn::Rebind<hwy::bfloat16_t, DF> d16;
  return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::bfloat16_t*>(p)));
}

/// Every NaN made the one that from_float() gives.
template <class DF>
hn::Vec<DF> canonical(DF df, hn::Vec<DF> x) {
  const auto nan = hn::BitCast(df, hn::Set(hn::RebindToUnsigned<DF>(), 0x7fffffffu));
  return hn::IfThenElse(hn::IsNaN(x), nan, x);
}

constexpr std::int64_t kLine = 64;

/// True if rows of `bytes` at `p`, `stride` apart, are whole cache lines.
inline bool fills_lines(const void* p, std::int64_t stride, std::int64_t bytes) {
  return (reinterpret_cast<std::intptr_t>(p) | stride | bytes) % kLine == 0;
}

/// Stores, past the caches if asked and the vector is not smaller than streaming stores are.
template <bool Stream, class D>
void put(hn::Vec<D> v, D d, hn::TFromD<D>* p) {
  if constexpr (Stream && hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) >= 16) {
    hn::Stream(v, d, p);
  } else {
    hn::StoreU(v, d, p);
  }
}

/// Copies a row; a streamed one is whole lines.
template <bool Stream>
void copy_row(const void* from, std::int64_t bytes, void* to) {
  if constexpr (Stream) {
    const hn::ScalableTag<std::uint8_t> d8;
    const auto* source = static_cast<const std::uint8_t*>(from);
    auto* target = static_cast<std::uint8_t*>(to);
    for (std::int64_t i = 0; i < bytes; i += static_cast<std::int64_t>(hn::Lanes(d8))) {
      hn::Stream(hn::LoadU(d8, source + i), d8, target + i);
    }
  } else {
    std::memmove(to, from, static_cast<std::size_t>(bytes));
  }
}

// Rounds numbers and infinities to T as from_float() does, and stores them.
template <bool Stream, class DF>
void store_number(DF df, hn::Vec<DF> x, float* p) {
  put<Stream>(x, df, p);
}
template <bool Stream, class DF>
void store_number(DF df, hn::Vec<DF> x, half_t* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  const hn::Rebind<std::uint16_t, DF> du16;
  put<Stream>(hn::BitCast(du16, hn::DemoteTo(d16, x)), du16, reinterpret_cast<std::uint16_t*>(p));
}
template <bool Stream, class DF>
void store_number(DF df, hn::Vec<DF> x, bfloat16_t* p) {
  const hn::RebindToUnsigned<DF> du;
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<std::uint16_t, DF> du16;
  const auto u = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, hn::Set(du, 0x7fffu)), odd));
  put<Stream>(hn::DemoteTo(du16, hn::BitCast(di, rounded)), du16, reinterpret_cast<std::uint16_t*>(p));
}

/// The same for any value: every NaN becomes the one that from_float() gives.
template <bool Stream, class DF, class T>
void store(DF df, hn::Vec<DF> x, T* p) {
  const hn::RebindToUnsigned<DF> du;
  // For bf16 such that rounding does not carry out of the NaN's bits.
  const auto nan = hn::BitCast(df, hn::Set(du, dtype_of<T> == DType::bf16 ? 0x7fff0000u : 0x7fffffffu));
  store_number<Stream>(df, hn::IfThenElse(hn::IsNaN(x), nan, x), p);
}

/// Runs body(tag, i) over `count` 64-bit units, as many in a vector as fit, with i the first of them. `count` is even.
template <class Body>
void for_units(int count, Body&& body) {
  const hn::ScalableTag<std::uint64_t> full;
  const hn::CappedTag<std::uint64_t, 4> four;
  const hn::Full128<std::uint64_t> two;
  int i = 0;
  for (; i + static_cast<int>(hn::Lanes(full)) <= count; i += static_cast<int>(hn::Lanes(full))) body(full, i);
  for (; i + static_cast<int>(hn::Lanes(four)) <= count; i += static_cast<int>(hn::Lanes(four))) body(four, i);
  for (; i < count; i += 2) body(two, i);
}

}  // namespace pagedkv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // PAGEDKV_SIMD_PASS
#endif  // include guard
