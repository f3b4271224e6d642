// Tiles converted to float32 once, for items with many rows. Included once per SIMD target.
//
// Keys are turned so that lanes are tokens, which needs no sums over lanes. A score has the bits that scores() gives
// it: one running sum for each residue of the channel modulo kLanes, and then the same tree of additions.

#include <cstddef>
#include <cstdint>

#include "cpu/attention/problem.h"
#include "cpu/attention/workspace.h"
#include "hwy/highway.h"

#if defined(PAGEDKV_CPU_ATTENTION_WIDE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_WIDE_INL_H_
#undef PAGEDKV_CPU_ATTENTION_WIDE_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_WIDE_INL_H_
#endif

#include "cpu/attention/simd-inl.h"
#include "cpu/attention/transpose-inl.h"

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

/// Keys of a tile as float32 [kTile / kLanes][dim][kLanes tokens], at least those of tokens [first, last).
template <Stored S>
HWY_NOINLINE void widen_keys(const char* const* rows, std::size_t first, std::size_t last, std::size_t dim,
                             float* out) {
  for (std::size_t t = first / kLanes * kLanes; t < last; t += kLanes) {
    for (std::size_t c = 0; c < dim / kLanes; ++c) {
      VF a[kLanes];
      for (std::size_t i = 0; i < kLanes; ++i) a[i] = load<S>(rows[t + i], c);
      transpose(a);
      for (std::size_t i = 0; i < kLanes; ++i) hn::Store(a[i], DF(), out + t * dim + (c * kLanes + i) * kLanes);
    }
  }
}

/// Values of a tile as float32 [kTile][dim]; only tokens [first, last).
template <Stored S>
HWY_NOINLINE void widen_values(const char* const* rows, std::size_t first, std::size_t last, std::size_t dim,
                               float* out) {
  for (std::size_t t = first; t < last; ++t) {
    for (std::size_t c = 0; c < dim / kLanes; ++c) hn::Store(load<S>(rows[t], c), DF(), out + t * dim + c * kLanes);
  }
}

/// out[r] = sum of q[r][d] * k[d] over the channels d whose residue modulo kLanes is J or differs from it by a multiple
/// of H.
template <int R, std::size_t J, std::size_t H>
HWY_INLINE void residue_sums(const float* q, std::size_t head_dim, const float* k, VF (&out)[R]) {
  const DF df;
  if constexpr (H == kLanes) {
    for (VF& x : out) x = hn::Zero(df);
    std::size_t d = J;
    do {  // head_dim is not 0
      const VF kd = hn::Load(df, k + d * kLanes);
      for (std::size_t r = 0; r < R; ++r) out[r] = hn::MulAdd(hn::Set(df, q[r * head_dim + d]), kd, out[r]);
      d += kLanes;
    } while (d < head_dim);
  } else if constexpr (2 * H == kLanes) {
    // Both at once: twice as many sums under way hide the latency of the additions.
    VF a[R];
    VF b[R];
    for (VF& x : a) x = hn::Zero(df);
    for (VF& x : b) x = hn::Zero(df);
    std::size_t d = J;
    do {
      const VF ka = hn::Load(df, k + d * kLanes);
      const VF kb = hn::Load(df, k + (d + H) * kLanes);
      for (std::size_t r = 0; r < R; ++r) {
        a[r] = hn::MulAdd(hn::Set(df, q[r * head_dim + d]), ka, a[r]);
        b[r] = hn::MulAdd(hn::Set(df, q[r * head_dim + d + H]), kb, b[r]);
      }
      d += kLanes;
    } while (d < head_dim);
    for (int r = 0; r < R; ++r) out[r] = hn::Add(a[r], b[r]);
  } else {
    VF b[R];
    residue_sums<R, J, 2 * H>(q, head_dim, k, out);
    residue_sums<R, J + H, 2 * H>(q, head_dim, k, b);
    for (int r = 0; r < R; ++r) out[r] = hn::Add(out[r], b[r]);
  }
}

/// Dot products of R rows of q with kLanes keys from widen_keys(): s[r][..], rows of kTile.
template <int R>
HWY_NOINLINE void wide_scores(const float* q, std::size_t head_dim, const float* k, float* s) {
  VF sums[R];
  residue_sums<R, 0, 1>(q, head_dim, k, sums);
  for (int r = 0; r < R; ++r) hn::Store(sums[r], DF(), s + r * kTile);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_WIDE_INL_H_
