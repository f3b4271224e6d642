// Transposition in registers. Included once per SIMD target.

#include <cstddef>

#include "hwy/highway.h"

#if defined(PAGEDKV_CPU_ATTENTION_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_TRANSPOSE_INL_H_
#undef PAGEDKV_CPU_ATTENTION_TRANSPOSE_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_TRANSPOSE_INL_H_
#endif

#include "cpu/attention/simd-inl.h"

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

/// Swaps the lanes of `a` whose index has bit H with the lanes of `b` whose index has not.
template <std::size_t H>
HWY_INLINE void swap_lanes(VF& a, VF& b) {
#if HWY_TARGET != HWY_SCALAR
  const DF df;
  const VF x = a;
  if constexpr (H == 1) {
    a = hn::OddEven(hn::Shuffle2301(b), x);
    b = hn::OddEven(b, hn::Shuffle2301(x));
  } else if constexpr (H == 2) {
    const hn::Repartition<double, DF> dd;
    const auto x2 = hn::BitCast(dd, x);
    const auto b2 = hn::BitCast(dd, b);
    a = hn::BitCast(df, hn::InterleaveLower(dd, x2, b2));
    b = hn::BitCast(df, hn::InterleaveUpper(dd, x2, b2));
  } else if constexpr (2 * H == kLanes) {
    a = hn::ConcatLowerLower(df, b, x);
    b = hn::ConcatUpperUpper(df, b, x);
  } else {
    a = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(b), x);
    b = hn::OddEvenBlocks(b, hn::SwapAdjacentBlocks(x));
  }
#endif
}

/// Transposes a kLanes x kLanes matrix.
template <std::size_t H = kLanes / 2>
HWY_INLINE void transpose(VF (&a)[kLanes]) {
  if constexpr (H > 0) {
    for (std::size_t i = 0; i < kLanes; ++i) {
      if ((i & H) == 0) swap_lanes<H>(a[i], a[i + H]);
    }
    transpose<H / 2>(a);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_TRANSPOSE_INL_H_
