// The two products of attention over one tile: scores = q . k, and o += p . v. Included once per SIMD target.
//
// A score is the sum over lanes of kLanes running sums, each over every kLanes-th element of head_dim; o adds the
// tokens one after the other. Neither order depends on how many rows are handled together.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/attention/problem.h"
#include "cpu/attention/workspace.h"
#include "hwy/highway.h"

#if defined(PAGEDKV_CPU_ATTENTION_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_PRODUCTS_INL_H_
#undef PAGEDKV_CPU_ATTENTION_PRODUCTS_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_PRODUCTS_INL_H_
#endif

#include "cpu/attention/simd-inl.h"
#include "cpu/attention/wide-inl.h"

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

/// Lane l of the result: a[l] + a[l^H] where (l & H) == 0, else b[l] + b[l^H].
template <std::size_t H>
HWY_INLINE VF fold_lanes(VF a, VF b) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Add(a, b);
#else
  const DF df;
  if constexpr (H == 1) {
    return hn::Add(hn::OddEven(b, a), hn::Shuffle2301(hn::OddEven(a, b)));
  } else if constexpr (H == 2) {
    const hn::Repartition<double, DF> dd;
    const auto a2 = hn::BitCast(dd, a);
    const auto b2 = hn::BitCast(dd, b);
    return hn::Add(hn::BitCast(df, hn::OddEven(b2, a2)), hn::BitCast(df, hn::Shuffle01(hn::OddEven(a2, b2))));
  } else if constexpr (2 * H == kLanes) {
    return hn::Add(hn::ConcatUpperLower(df, b, a), hn::ConcatLowerUpper(df, b, a));
  } else {
    return hn::Add(hn::OddEvenBlocks(b, a), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(a, b)));
  }
#endif
}

/// Lane l of the result is the sum of the lanes of a[l]. Overwrites a.
template <std::size_t H = kLanes / 2>
HWY_INLINE VF sums(VF (&a)[kLanes]) {
  if constexpr (H == 0) {
    return a[0];
  } else {
    for (std::size_t i = 0; i < H; ++i) a[i] = fold_lanes<H>(a[i], a[i + H]);
    return sums<H / 2>(a);
  }
}

/// Dot products of `R` rows of q with the keys [first, last) of a tile: s[r][t], rows of kTile. `k` has an address for
/// every token of the tile, readable even outside [first, last).
template <Stored S, int R>
HWY_NOINLINE void scores(const float* q, std::size_t head_dim, const char* const* k, std::size_t first,
                         std::size_t last, float* s, const Ahead& ahead) {
  constexpr std::size_t kPadded = R == 3 ? 4 : R;
  constexpr std::size_t kTokens = kLanes >= kPadded ? kLanes / kPadded : 1;
  const DF df;
  const std::size_t vecs = head_dim / kLanes;
  Prefetcher near(ahead, (last + kTokens - 1) / kTokens - first / kTokens, 1);
  for (std::size_t t = first / kTokens * kTokens; t < last; t += kTokens) {
    near.step();
    VF acc[R][kTokens];
    for (auto& row : acc) {
      for (VF& x : row) x = hn::Zero(df);
    }
    for (std::size_t c = 0; c < vecs; ++c) {
      VF qc[R];
      for (int r = 0; r < R; ++r) qc[r] = hn::Load(df, q + static_cast<std::size_t>(r) * head_dim + c * kLanes);
      for (std::size_t j = 0; j < kTokens; ++j) {
        const VF kc = load<S>(k[t + j], c);
        for (int r = 0; r < R; ++r) acc[r][j] = hn::MulAdd(qc[r], kc, acc[r][j]);
      }
    }
    if constexpr (kLanes >= kPadded) {
      VF flat[kLanes];
      for (std::size_t l = 0; l < kLanes; ++l) {
        flat[l] = l / kTokens < R ? acc[l / kTokens][l % kTokens] : hn::Zero(df);
      }
      alignas(64) float out[kLanes];
      hn::Store(sums(flat), df, out);
      for (std::size_t r = 0; r < R; ++r) std::memcpy(s + r * kTile + t, out + r * kTokens, kTokens * sizeof(float));
    } else {
      for (int r = 0; r < R; ++r) s[r * kTile + static_cast<std::ptrdiff_t>(t)] = sum(acc[r][0]);
    }
  }
}

/// o[r][kLanes*vec ..] += sum over tokens [first, last) of p[r][t] * v[t][..] for NV vectors and R rows.
template <Stored S, int R, int NV>
HWY_INLINE void accumulate(const float* p, const char* const* v, std::size_t first, std::size_t last, std::size_t vec,
                           float* o, std::size_t v_dim, Prefetcher& near) {
  const DF df;
  VF acc[R][NV];
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < NV; ++n) {
      acc[r][n] = hn::Load(df, o + static_cast<std::size_t>(r) * v_dim + (vec + static_cast<std::size_t>(n)) * kLanes);
    }
  }
  for (std::size_t t = first; t < last; ++t) {
    near.step();
    VF vc[NV];
    for (int n = 0; n < NV; ++n) vc[n] = load<S>(v[t], vec + static_cast<std::size_t>(n));
    for (int r = 0; r < R; ++r) {
      const VF pr = hn::Set(df, p[static_cast<std::size_t>(r) * kTile + t]);
      for (int n = 0; n < NV; ++n) acc[r][n] = hn::MulAdd(pr, vc[n], acc[r][n]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < NV; ++n) {
      hn::Store(acc[r][n], df, o + static_cast<std::size_t>(r) * v_dim + (vec + static_cast<std::size_t>(n)) * kLanes);
    }
  }
}

/// accumulate() for all of v_dim.
template <Stored S, int R>
HWY_NOINLINE void weighted_sum(const float* p, const char* const* v, std::size_t first, std::size_t last, float* o,
                               std::size_t v_dim, const Ahead& ahead) {
  constexpr int kRegisters = kLanes == 16 ? 16 : 8;  // sums that stay in registers
  constexpr int kMost = kRegisters / (R == 3 ? 4 : R) < 8 ? kRegisters / (R == 3 ? 4 : R) : 8;
  const std::size_t vecs = v_dim / kLanes;
  const std::size_t rest = vecs % kMost;
  Prefetcher near(ahead, last - first, vecs / kMost + (kMost > 4 ? rest / 4 + rest % 4 : rest));
  std::size_t vec = 0;
  for (; vec + kMost <= vecs; vec += kMost) accumulate<S, R, kMost>(p, v, first, last, vec, o, v_dim, near);
  if constexpr (kMost > 4) {
    for (; vec + 4 <= vecs; vec += 4) accumulate<S, R, 4>(p, v, first, last, vec, o, v_dim, near);
  }
  for (; vec < vecs; ++vec) accumulate<S, R, 1>(p, v, first, last, vec, o, v_dim, near);
}

/// The kernels for rows stored in one way; the arrays are indexed by the number of rows of q, less 1.
struct RowKernels {
  using Scores = void (*)(const float*, std::size_t, const char* const*, std::size_t, std::size_t, float*,
                          const Ahead&);
  using WeightedSum = void (*)(const float*, const char* const*, std::size_t, std::size_t, float*, std::size_t,
                               const Ahead&);
  using Widen = void (*)(const char* const*, std::size_t, std::size_t, std::size_t, float*);

  Scores scores[kRowsAtOnce];
  WeightedSum weighted_sum[kRowsAtOnce];
  Widen widen_keys;
  Widen widen_values;
};

template <Stored S>
inline constexpr RowKernels kRowKernels = {
    {scores<S, 1>, scores<S, 2>, scores<S, 3>, scores<S, 4>},
    {weighted_sum<S, 1>, weighted_sum<S, 2>, weighted_sum<S, 3>, weighted_sum<S, 4>},
    widen_keys<S>,
    widen_values<S>,
};

/// wide_scores() by the number of rows, less 1.
inline constexpr void (*kWideScores[kRowsAtOnce])(const float*, std::size_t, const float*, float*) = {
    wide_scores<1>, wide_scores<2>, wide_scores<3>, wide_scores<4>};

HWY_INLINE const RowKernels& row_kernels(Stored stored) {
  switch (stored) {
    case Stored::f32:
      return kRowKernels<Stored::f32>;
    case Stored::f16:
      return kRowKernels<Stored::f16>;
    case Stored::bf16:
      return kRowKernels<Stored::bf16>;
    case Stored::int8:
      return kRowKernels<Stored::int8>;
    case Stored::int4:
      break;
  }
  return kRowKernels<Stored::int4>;
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_PRODUCTS_INL_H_
