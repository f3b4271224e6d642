// One item: its rows over its splits, tile by tile. Included once per SIMD target.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "cpu/attention/problem.h"
#include "cpu/attention/tile.h"
#include "cpu/attention/workspace.h"
#include "hwy/highway.h"

#if defined(PAGEDKV_CPU_ATTENTION_RUN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_RUN_INL_H_
#undef PAGEDKV_CPU_ATTENTION_RUN_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_RUN_INL_H_
#endif

#include "cpu/attention/output-inl.h"
#include "cpu/attention/products-inl.h"
#include "cpu/attention/simd-inl.h"
#include "cpu/attention/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

/// Up to this many rows the keys and values are converted on the fly, above it once into a float32 tile.
inline constexpr std::int32_t kDirectRows = kRowsAtOnce;

/// An item under way.
struct Run {
  const Problem& p;
  const Item& item;
  const Scratch& s;
  std::int32_t rows;
  std::size_t head_dim;
  std::size_t v_dim;
};

/// Part of row r's visible tokens that lies in the tile that starts at `base`, in tokens of the tile.
HWY_INLINE LocalRange in_tile(const Run& run, std::int32_t r, std::int32_t base, const Tile& tile) {
  const LocalRange v = run.s.visible[r];
  return {std::clamp(v.first - base, tile.first, tile.last), std::clamp(v.last - base, tile.first, tile.last)};
}

/// Rows [r, end) of at most kRowsAtOnce, cut where `same` says so; returns how many.
HWY_INLINE std::int32_t rows_alike(const Run& run, std::int32_t r, std::int32_t end, std::int32_t base,
                                   const Tile& tile) {
  const LocalRange range = in_tile(run, r, base, tile);
  std::int32_t n = 1;
  while (n < kRowsAtOnce && r + n < end) {
    const LocalRange next = in_tile(run, r + n, base, tile);
    if (next.first != range.first || next.last != range.last) break;
    ++n;
  }
  return n;
}

/// Scores, softmax and weighted sum of rows [begin, end) over a tile.
HWY_INLINE void run_tile(const Run& run, std::int32_t begin, std::int32_t end, std::int32_t base, const Tile& tile,
                         const RowKernels& k_kernels, const char* const* k, const RowKernels& v_kernels,
                         const char* const* v) {
  const Scratch& s = run.s;
  const auto score_row = [&](std::int32_t r) { return s.scores + std::ptrdiff_t{r - begin} * kTile; };
  for (std::int32_t r = begin; r < end;) {
    const std::int32_t n = std::min<std::int32_t>(kRowsAtOnce, end - r);
    std::int32_t first = kTile;
    std::int32_t last = 0;
    for (std::int32_t i = 0; i < n; ++i) {
      const LocalRange range = in_tile(run, r + i, base, tile);
      if (range.empty()) continue;
      first = std::min(first, range.first);
      last = std::max(last, range.last);
    }
    if (first < last) {
      k_kernels.scores[n - 1](s.q + static_cast<std::size_t>(r) * run.head_dim, run.head_dim, k,
                              static_cast<std::size_t>(first), static_cast<std::size_t>(last), score_row(r));
    }
    r += n;
  }
  for (std::int32_t r = begin; r < end; ++r) {
    const LocalRange range = in_tile(run, r, base, tile);
    if (!range.empty()) soften(run.p, s, r, range, tile, score_row(r));
  }
  // Tokens that a row does not see are left out rather than weighted with 0, since their values may be NaN.
  for (std::int32_t r = begin; r < end;) {
    const std::int32_t n = rows_alike(run, r, end, base, tile);
    const LocalRange range = in_tile(run, r, base, tile);
    if (!range.empty()) {
      v_kernels.weighted_sum[n - 1](score_row(r), v, static_cast<std::size_t>(range.first),
                                    static_cast<std::size_t>(range.last), s.o + static_cast<std::size_t>(r) * run.v_dim,
                                    run.v_dim);
    }
    r += n;
  }
}

/// All rows over the local tokens [begin, end) of one tile.
HWY_INLINE void run_tile(const Run& run, std::int32_t begin, std::int32_t end) {
  const Problem& p = run.p;
  const Scratch& s = run.s;
  Tile tile;
  gather(p, run.item.batch, run.item.kv_head, begin, end, tile);
  if (is_quantised(p.k)) read_params(p.q, p.k, tile.k_raw, tile.k_scale, tile.k_zero);
  if (is_quantised(p.v)) read_params(p.q, p.v, tile.v_raw, tile.v_scale, tile.v_zero);

  const RowKernels* k_kernels = &row_kernels(p.k);
  const RowKernels* v_kernels = &row_kernels(p.v);
  const char* const* k = tile.k;
  const char* const* v = tile.v;
  const char* wide_k[kTile];
  const char* wide_v[kTile];
  if (run.rows > kDirectRows) {
    const auto first = static_cast<std::size_t>(tile.first);
    const auto last = static_cast<std::size_t>(tile.last);
    if (p.k != Stored::f32) {
      k_kernels->widen(tile.k, first, last, run.head_dim, s.wide_k);
      for (std::int32_t t = 0; t < kTile; ++t) {
        const std::int32_t row = t < tile.first || t >= tile.last ? tile.first : t;
        wide_k[t] = reinterpret_cast<const char*>(s.wide_k + std::ptrdiff_t{row} * p.head_dim);
      }
      k = wide_k;
    }
    if (p.v != Stored::f32) {
      const bool shared = p.args->layout.shared_kv;
      if (!shared) v_kernels->widen(tile.v, first, last, run.v_dim, s.wide_v);
      for (std::int32_t t = tile.first; t < tile.last; ++t) {
        wide_v[t] = shared ? wide_k[t] + std::ptrdiff_t{p.v_offset} * 4
                           : reinterpret_cast<const char*>(s.wide_v + std::ptrdiff_t{t} * p.v_dim);
      }
      v = wide_v;
    }
    k_kernels = &row_kernels(Stored::f32);
    v_kernels = k_kernels;
  }
  for (std::int32_t r = 0; r < run.rows; r += kSubRows) {
    run_tile(run, r, std::min(r + kSubRows, run.rows), begin / kTile * kTile, tile, *k_kernels, k, *v_kernels, v);
  }
}

/// Runs an item. Writes its outputs, or if it is not all of its rows, its partials.
inline void run_item(const Problem& p, const Item& item, const Scratch& s, const Partials& partials) {
  const Run run{p, item, s, item.rows(), static_cast<std::size_t>(p.head_dim), static_cast<std::size_t>(p.v_dim)};
  load_queries(p, item, s);
  LocalRange seen{std::numeric_limits<std::int32_t>::max(), 0};
  for (std::int32_t r = 0; r < run.rows; ++r) {
    s.visible[r] = p.visible(item.batch, item.token + r / item.heads);
    seen.first = std::min(seen.first, s.visible[r].first);
    seen.last = std::max(seen.last, s.visible[r].last);
  }
  clear_totals(p, run.rows, s);
  for (std::int32_t split = item.split; split < item.split + item.splits; ++split) {
    clear_split(p, run.rows, s);
    const std::int32_t begin = std::max(split * kSplit, seen.first);
    const std::int32_t end = std::min(split * kSplit + kSplit, seen.last);
    for (std::int32_t t = begin; t < end; t = t / kTile * kTile + kTile) {
      run_tile(run, t, std::min(t / kTile * kTile + kTile, end));
    }
    for (std::int32_t r = 0; r < run.rows; ++r) {
      const float sum_of_row = finish_split(p, s, r);
      float* o = s.o + static_cast<std::ptrdiff_t>(r) * p.v_dim;
      if (item.partial < 0) {
        fold(p, s, r, s.max[r], sum_of_row, o);
      } else {
        const std::int64_t row = item.partial + std::int64_t{split - item.split} * run.rows + r;
        partials.max_sum[2 * row] = s.max[r];
        partials.max_sum[2 * row + 1] = sum_of_row;
        std::copy_n(o, p.v_dim, partials.o + row * p.v_dim);
      }
    }
  }
  if (item.partial < 0) store_outputs(p, item, s);
}

/// Folds the partials of all splits of a group of rows, and writes the outputs.
inline void run_fold(const Problem& p, const Item& group, const Scratch& s, const Partials& partials) {
  const std::int32_t rows = group.rows();
  clear_totals(p, rows, s);
  for (std::int32_t split = 0; split < group.splits; ++split) {
    for (std::int32_t r = 0; r < rows; ++r) {
      const std::int64_t row = group.partial + std::int64_t{split} * rows + r;
      fold(p, s, r, partials.max_sum[2 * row], partials.max_sum[2 * row + 1], partials.o + row * p.v_dim);
    }
  }
  store_outputs(p, group, s);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_RUN_INL_H_
