// The running softmax of each row: scores of a tile become weights, and the states of splits are folded. Included once
// per SIMD target.
//
// Scores are in powers of two. A quantised side is used by its codes, less half their range: with x = scale * code +
// zero, q . k = scale * (q . code) + zero * sum(q), and sum p v = sum (p * scale) code + sum p * zero.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "cpu/attention/problem.h"
#include "cpu/attention/tile.h"
#include "cpu/attention/workspace.h"
#include "hwy/highway.h"

#if defined(PAGEDKV_CPU_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_SOFTMAX_INL_H_
#undef PAGEDKV_CPU_ATTENTION_SOFTMAX_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_SOFTMAX_INL_H_
#endif

#include "cpu/attention/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

static_assert(kLanes <= static_cast<std::size_t>(kStateLanes));

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <Stored T>
HWY_INLINE void convert_params(float half_range, TileParams& params) {
  const DF df;
  for (std::size_t t = 0; t < static_cast<std::size_t>(kTile); t += kLanes) {
    VF s;
    VF z;
#if HWY_TARGET == HWY_SCALAR
    s = load<T>(params.raw, 2 * t);
    z = load<T>(params.raw, 2 * t + 1);
#else
    const VF low = load<T>(params.raw, 2 * t / kLanes);
    const VF high = load<T>(params.raw, 2 * t / kLanes + 1);
    s = hn::ConcatEven(df, high, low);
    z = hn::ConcatOdd(df, high, low);
#endif
    hn::Store(s, df, params.scale + t);
    // load() gives codes less half their range, which the zero makes up for.
    hn::Store(hn::MulAdd(s, hn::Set(df, half_range), z), df, params.zero + t);
  }
}

/// Parameters of a tile, stored as {scale, zero} of type `type`, for codes as load() gives them.
HWY_INLINE void convert_params(Stored type, Stored codes, TileParams& params) {
  const float half_range = codes == Stored::int8 ? 128.0F : 8.0F;
  switch (type) {
    case Stored::f32:
      return convert_params<Stored::f32>(half_range, params);
    case Stored::f16:
      return convert_params<Stored::f16>(half_range, params);
    default:
      return convert_params<Stored::bf16>(half_range, params);
  }
}

/// x[0, n) *= factor; n is a multiple of kLanes.
HWY_INLINE void multiply(float* x, std::size_t n, float factor) {
  const DF df;
  const VF f = hn::Set(df, factor);
  for (std::size_t i = 0; i < n; i += kLanes) hn::Store(hn::Mul(hn::Load(df, x + i), f), df, x + i);
}

HWY_INLINE void clear_split(const Problem& p, std::int32_t rows, const Scratch& s) {
  std::fill_n(s.max, rows, kMinusInfinity);
  std::fill_n(s.sum_lanes, std::ptrdiff_t{rows} * kStateLanes, 0.0F);
  std::fill_n(s.zero_lanes, std::ptrdiff_t{rows} * kStateLanes, 0.0F);
  std::fill_n(s.o, std::ptrdiff_t{rows} * p.v_dim, 0.0F);
}

HWY_INLINE void clear_totals(const Problem& p, std::int32_t rows, const Scratch& s) {
  std::fill_n(s.total_max, rows, kMinusInfinity);
  std::fill_n(s.total_sum, rows, 0.0F);
  std::fill_n(s.total_o, std::ptrdiff_t{rows} * p.v_dim, 0.0F);
}

/// Which of the lanes t .. t+kLanes-1 lie in the range.
HWY_INLINE hn::Mask<DF> lanes_in(std::size_t t, LocalRange range) {
  const DI di;
  alignas(64) static constexpr std::int32_t kIndex[kStateLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                                   8, 9, 10, 11, 12, 13, 14, 15};
  const auto index = hn::Load(di, kIndex);
  const auto at = static_cast<std::int32_t>(t);
  const auto below = hn::Lt(index, hn::Set(di, range.first - at));
  return hn::RebindMask(DF(), hn::AndNot(below, hn::Lt(index, hn::Set(di, range.last - at))));
}

/// Turns row r's dot products over `range` of a tile into weights for V's codes, and updates the row's state.
HWY_INLINE void soften(const Problem& p, const Scratch& s, std::int32_t r, LocalRange range, const TileParams& k_params,
                       const TileParams& v_params, float* score) {
  const DF df;
  const bool k_quantised = is_quantised(p.k);
  const bool v_quantised = is_quantised(p.v);
  const std::size_t begin = static_cast<std::size_t>(range.first) / kLanes * kLanes;
  const auto end = static_cast<std::size_t>(range.last);
  const VF minus_infinity = hn::Set(df, kMinusInfinity);
  const VF q_sum = hn::Set(df, s.q_sum[r]);
  const VF cap = hn::Set(df, p.cap);

  VF most = minus_infinity;
  for (std::size_t t = begin; t < end; t += kLanes) {
    VF x = hn::Load(df, score + t);
    if (k_quantised) {
      x = hn::MulAdd(hn::Load(df, k_params.scale + t), x, hn::Mul(hn::Load(df, k_params.zero + t), q_sum));
    }
    if (p.cap > 0.0F) x = hn::Mul(cap, tanh(x));
    x = hn::IfThenElse(lanes_in(t, range), x, minus_infinity);
    hn::Store(x, df, score + t);
    most = hn::Max(most, x);
  }
  const float old_max = s.max[r];
  const float new_max = std::max(old_max, hn::GetLane(hn::MaxOfLanes(df, most)));
  const float keep = exp2_nonpositive(old_max - new_max);
  s.max[r] = new_max;

  const VF max = hn::Set(df, new_max);
  VF weights = hn::Zero(df);
  VF zeros = hn::Zero(df);
  for (std::size_t t = begin; t < end; t += kLanes) {
    VF w = exp2_nonpositive(hn::Sub(hn::Load(df, score + t), max));
    weights = hn::Add(weights, w);
    if (v_quantised) {
      // Other rows may see a token that this one does not, and its parameters may be NaN.
      const auto seen = lanes_in(t, range);
      zeros = hn::MulAdd(w, hn::IfThenElseZero(seen, hn::Load(df, v_params.zero + t)), zeros);
      w = hn::Mul(w, hn::IfThenElseZero(seen, hn::Load(df, v_params.scale + t)));
    }
    hn::Store(w, df, score + t);
  }
  const VF keep_all = hn::Set(df, keep);
  float* sum_lanes = s.sum_lanes + std::ptrdiff_t{r} * kStateLanes;
  hn::Store(hn::MulAdd(hn::Load(df, sum_lanes), keep_all, weights), df, sum_lanes);
  if (v_quantised) {
    float* zero_lanes = s.zero_lanes + std::ptrdiff_t{r} * kStateLanes;
    hn::Store(hn::MulAdd(hn::Load(df, zero_lanes), keep_all, zeros), df, zero_lanes);
  }
  if (keep != 1.0F) multiply(s.o + std::ptrdiff_t{r} * p.v_dim, static_cast<std::size_t>(p.v_dim), keep);
}

/// Completes the split's o of row r; returns its sum.
HWY_INLINE float finish_split(const Problem& p, const Scratch& s, std::int32_t r) {
  const DF df;
  if (is_quantised(p.v)) {
    const VF zero = hn::Set(df, sum(hn::Load(df, s.zero_lanes + std::ptrdiff_t{r} * kStateLanes)));
    float* o = s.o + std::ptrdiff_t{r} * p.v_dim;
    for (std::size_t i = 0; i < static_cast<std::size_t>(p.v_dim); i += kLanes) {
      hn::Store(hn::Add(hn::Load(df, o + i), zero), df, o + i);
    }
  }
  return sum(hn::Load(df, s.sum_lanes + std::ptrdiff_t{r} * kStateLanes));
}

/// Folds the state of one split, {max, sum, o}, into row r's totals.
HWY_INLINE void fold(const Problem& p, const Scratch& s, std::int32_t r, float max, float sum_of_row, const float* o) {
  if (max == kMinusInfinity && sum_of_row == 0.0F) return;  // the row sees nothing of this split
  const DF df;
  const float new_max = std::max(s.total_max[r], max);
  const float keep = exp2_nonpositive(s.total_max[r] - new_max);
  const float take = exp2_nonpositive(max - new_max);
  s.total_max[r] = new_max;
  s.total_sum[r] = s.total_sum[r] * keep + sum_of_row * take;
  float* total = s.total_o + std::ptrdiff_t{r} * p.v_dim;
  const VF keep_all = hn::Set(df, keep);
  const VF take_all = hn::Set(df, take);
  for (std::size_t i = 0; i < static_cast<std::size_t>(p.v_dim); i += kLanes) {
    const VF kept = hn::Mul(hn::Load(df, total + i), keep_all);
    hn::Store(hn::MulAdd(hn::Load(df, o + i), take_all, kept), df, total + i);
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_SOFTMAX_INL_H_
