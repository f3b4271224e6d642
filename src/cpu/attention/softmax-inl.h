// The running softmax of each row: scores of a tile become weights, and the states of splits are folded. Included once
// per SIMD target.
//
// Scores are in powers of two. A quantised side is used by its codes, less half their range (but keys that are
// multiplied as integers as they are): with x = scale * code + zero, q . k = scale * (q . code) + zero * sum(q), and
// sum p v = sum (p * scale) code + sum p * zero.

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

#include "cpu/attention/integer-inl.h"
#include "cpu/attention/simd-inl.h"

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

static_assert(kLanes <= static_cast<std::size_t>(kStateLanes));

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <Stored T>
HWY_INLINE void convert_params(float centre, TileParams& params) {
  const DF df;
  for (std::size_t t = 0; t < static_cast<std::size_t>(kTile); t += kLanes) {
    VF s;
    VF z;
#if HWY_TARGET == HWY_SCALAR
    s = load<T>(params.stored, 2 * t);
    z = load<T>(params.stored, 2 * t + 1);
#else
    const VF low = load<T>(params.stored, 2 * t / kLanes);
    const VF high = load<T>(params.stored, 2 * t / kLanes + 1);
    s = hn::ConcatEven(df, high, low);
    z = hn::ConcatOdd(df, high, low);
#endif
    hn::Store(s, df, params.scale + t);
    // Codes less half their range are made up for by the zero.
    hn::Store(hn::MulAdd(s, hn::Set(df, centre), z), df, params.zero + t);
  }
}

/// Parameters of a tile, stored as {scale, zero} of type `type`, for codes less `centre`.
HWY_INLINE void convert_params(Stored type, float centre, TileParams& params) {
  switch (type) {
    case Stored::f32:
      return convert_params<Stored::f32>(centre, params);
    case Stored::f16:
      return convert_params<Stored::f16>(centre, params);
    default:
      return convert_params<Stored::bf16>(centre, params);
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

inline constexpr std::size_t kTileVecs = kTile / kLanes;

/// What the softmax of a row over a tile works with. Its steps run over all rows one after the other: reductions over
/// lanes are chains of dependent instructions, and those of different rows overlap.
struct RowTile {
  std::int32_t row;                      ///< of the item
  LocalRange range;                      ///< what it sees of the tile; may be empty
  TileBits hidden;                       ///< in the range, but not seen
  bool hides;                            ///< any
  float* scores;                         ///< [kTile] dot products, then scores, then weights or their digits
  alignas(64) float lanes[kStateLanes];  ///< by lane: largest score, largest weight, then sum of fixed-point weights

#if PAGEDKV_CPU_ATTENTION_INTEGERS
  FixedScale fixed;  ///< of the weights
#endif

  bool sees_all() const {
    return !hides && range.first == 0 && range.last == kTile;
  }
};

/// Which of the lanes t .. t+kLanes-1 the row sees.
HWY_INLINE hn::Mask<DF> seen_lanes(const RowTile& rt, std::size_t t) {
  const hn::Mask<DF> in_range = lanes_in(t, rt.range);
  if (!rt.hides) return in_range;
  const DF df;
  alignas(64) float hidden[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) hidden[i] = rt.hidden.test(static_cast<std::int32_t>(t + i)) ? 1.0F : 0.0F;
  return hn::And(in_range, hn::Eq(hn::Load(df, hidden), hn::Zero(df)));
}

/// Scores from dot products, -inf for what the row does not see.
template <bool kAll>
HWY_INLINE void scale_scores(const Problem& p, const Scratch& s, RowTile& rt, const TileParams& k_params) {
  const DF df;
  const VF q_sum = hn::Set(df, s.q_sum[rt.row]);
  VF most = hn::Set(df, kMinusInfinity);
  for (std::size_t t = 0; t < static_cast<std::size_t>(kTile); t += kLanes) {
    VF x = hn::Load(df, rt.scores + t);
    if (is_quantised(p.k)) {
      x = hn::MulAdd(hn::Load(df, k_params.scale + t), x, hn::Mul(hn::Load(df, k_params.zero + t), q_sum));
    }
    if (p.cap > 0.0F) x = hn::Mul(hn::Set(df, p.cap), tanh(x));
    if constexpr (!kAll) x = hn::IfThenElse(seen_lanes(rt, t), x, hn::Set(df, kMinusInfinity));
    hn::Store(x, df, rt.scores + t);
    most = hn::Max(most, x);
  }
  hn::Store(most, df, rt.lanes);
}

/// Updates the row's maximum, and its sums to match.
HWY_INLINE void update_max(const Problem& p, const Scratch& s, const RowTile& rt) {
  const DF df;
  const float old_max = s.max[rt.row];
  const float new_max = std::max(old_max, hn::GetLane(hn::MaxOfLanes(df, hn::Load(df, rt.lanes))));
  if (new_max == old_max) return;
  const float keep = exp2_nonpositive(old_max - new_max);
  s.max[rt.row] = new_max;
  multiply(s.sum_lanes + std::ptrdiff_t{rt.row} * kStateLanes, kStateLanes, keep);
  multiply(s.zero_lanes + std::ptrdiff_t{rt.row} * kStateLanes, kStateLanes, keep);
  multiply(s.o + std::ptrdiff_t{rt.row} * p.v_dim, static_cast<std::size_t>(p.v_dim), keep);
}

/// Weights for V's codes from scores; updates the row's sums.
template <bool kAll>
HWY_INLINE void weigh_scores(const Problem& p, const Scratch& s, RowTile& rt, const TileParams& v_params) {
  const DF df;
  const DI di;
  float* sum_lanes = s.sum_lanes + std::ptrdiff_t{rt.row} * kStateLanes;
  float* zero_lanes = s.zero_lanes + std::ptrdiff_t{rt.row} * kStateLanes;
  const VF max = hn::Set(df, s.max[rt.row]);
  VF sums = hn::Load(df, sum_lanes);
  VF zeros = hn::Load(df, zero_lanes);
  hn::Vec<DI> largest = hn::Zero(di);
  for (std::size_t t = 0; t < static_cast<std::size_t>(kTile); t += kLanes) {
    VF w = exp2_nonpositive(hn::Sub(hn::Load(df, rt.scores + t), max));
    sums = hn::Add(sums, w);
    if (is_quantised(p.v)) {
      VF zero = hn::Load(df, v_params.zero + t);
      VF scale = hn::Load(df, v_params.scale + t);
      if constexpr (!kAll) {
        // Other rows may see a token that this one does not, and its parameters may be NaN.
        zero = hn::IfThenElseZero(seen_lanes(rt, t), zero);
        scale = hn::IfThenElseZero(seen_lanes(rt, t), scale);
      }
      zeros = hn::MulAdd(w, zero, zeros);
      w = hn::Mul(w, scale);
      // Numbers without sign have the same order as integers; infinity and NaN come last.
      if (in_integers(p.v)) largest = hn::Max(largest, hn::BitCast(di, hn::Abs(w)));
    }
    hn::Store(w, df, rt.scores + t);
  }
  hn::Store(sums, df, sum_lanes);
  hn::Store(zeros, df, zero_lanes);
  hn::Store(hn::BitCast(df, largest), df, rt.lanes);
}

#if PAGEDKV_CPU_ATTENTION_INTEGERS
/// Fixed-point scale of a row's weights.
HWY_INLINE FixedScale weight_scale(const RowTile& rt) {
  const DI di;
  const std::int32_t bits = hn::GetLane(hn::MaxOfLanes(di, hn::BitCast(di, hn::Load(DF(), rt.lanes))));
  float largest;
  std::memcpy(&largest, &bits, sizeof(largest));
  return fixed_scale(largest, bits < 0x7f800000);
}

/// Replaces a row of weights by their digits [kDigits][kTile].
HWY_INLINE void fix_weights(RowTile& rt) {
  const DF df;
  const DI di;
  VF w[kTileVecs];
  for (std::size_t i = 0; i < kTileVecs; ++i) w[i] = hn::Load(df, rt.scores + i * kLanes);
  auto* digits = reinterpret_cast<std::uint8_t*>(rt.scores);
  const VF scale = hn::Set(df, rt.fixed.to_fixed);
  VI total = hn::Zero(di);
  for (std::size_t i = 0; i < kTileVecs; ++i) {
    const VI x = to_fixed(w[i], scale);
    total = hn::Add(total, x);
    store_digits(x, digits + i * kLanes, kTile);
  }
  hn::Store(hn::BitCast(df, total), df, rt.lanes);
}

/// Sum of the fixed-point weights, each below 2^23: exact in 32 bits.
HWY_INLINE std::int32_t total_weight(const RowTile& rt) {
  const DI di;
  return hn::GetLane(hn::SumOfLanes(di, hn::BitCast(di, hn::Load(DF(), rt.lanes))));
}

/// Replaces the rows' weights by digits.
HWY_INLINE void fix_rows(const Problem& p, const Scratch& s, std::int32_t first_row, RowTile* rows, std::int32_t n,
                         Prefetcher& near) {
  const float centre = half_range(p.v);
  for (std::int32_t i = 0; i < n; ++i) rows[i].fixed = weight_scale(rows[i]);
  for (std::int32_t i = 0; i < n; ++i) {
    near.step();
    fix_weights(rows[i]);
  }
  for (std::int32_t i = 0; i < n; ++i) {
    s.weight_unit[rows[i].row - first_row] = {rows[i].fixed.unit, centre * static_cast<float>(total_weight(rows[i]))};
  }
}
#endif

/// Turns the dot products of `count` rows, kTile apart, into weights for V's codes, and updates the rows' states. A row
/// that sees nothing of the tile is left out or, for integer products, gets weights of 0. look(rt) sets what row rt.row
/// sees. Brings rows ahead near meanwhile.
template <class Look>
HWY_INLINE void soften(const Problem& p, const Scratch& s, std::int32_t first_row, std::int32_t count, Look look,
                       const TileParams& k_params, const TileParams& v_params, const Ahead& ahead) {
  RowTile rows[kSubRows];
  std::int32_t n = 0;
  for (std::int32_t i = 0; i < count; ++i) {
    RowTile& rt = rows[n];
    rt.row = first_row + i;
    look(rt);
    rt.scores = s.scores + std::ptrdiff_t{i} * kTile;
    if (!rt.range.empty()) {
      ++n;
    } else if (in_integers(p.v)) {
      std::fill_n(rt.scores, kTile, 0.0F);
      s.weight_unit[i] = {};
    }
  }
  Prefetcher near(ahead, static_cast<std::size_t>(n), 3);
  const auto each = [&](auto f) HWY_ATTR {
    for (std::int32_t i = 0; i < n; ++i) f(rows[i]);
  };
  each([&](RowTile& rt) HWY_ATTR {
    near.step();
    rt.sees_all() ? scale_scores<true>(p, s, rt, k_params) : scale_scores<false>(p, s, rt, k_params);
  });
  each([&](RowTile& rt) HWY_ATTR { update_max(p, s, rt); });
  each([&](RowTile& rt) HWY_ATTR {
    near.step();
    rt.sees_all() ? weigh_scores<true>(p, s, rt, v_params) : weigh_scores<false>(p, s, rt, v_params);
  });
#if PAGEDKV_CPU_ATTENTION_INTEGERS
  if (!in_integers(p.v)) return;
  fix_rows(p, s, first_row, rows, n, near);
#endif
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
