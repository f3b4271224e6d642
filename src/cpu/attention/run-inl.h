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
  TileParams k_params;
  TileParams v_params;

  Run(const Problem& problem, const Item& of, const Scratch& scratch)
      : p(problem),
        item(of),
        s(scratch),
        rows(of.rows()),
        head_dim(static_cast<std::size_t>(problem.head_dim)),
        v_dim(static_cast<std::size_t>(problem.v_dim)) {}

  /// Keys and values are converted as they are used, not once into a float32 tile.
  bool direct() const { return rows <= kDirectRows; }
};

/// The kernels' view of a tile: where its keys and values are, and what to bring near meanwhile.
struct View {
  const Tile& tile;
  const RowKernels* k_kernels;
  const char* const* k;
  Ahead k_ahead;
  const float* wide_k;  ///< from widen_keys(); null: keys are at k
  const RowKernels* v_kernels;
  const char* const* v;
  Ahead v_ahead;
};

/// Part of row r's visible tokens that lies in the tile, in tokens of the tile.
HWY_INLINE LocalRange in_tile(const Run& run, std::int32_t r, const Tile& tile) {
  const LocalRange v = run.s.visible[r];
  return {std::clamp(v.first - tile.base, tile.first, tile.last),
          std::clamp(v.last - tile.base, tile.first, tile.last)};
}

/// How many of the rows [r, end) see the same part of the tile as row r, at most kRowsAtOnce.
HWY_INLINE std::int32_t rows_alike(const Run& run, std::int32_t r, std::int32_t end, const Tile& tile) {
  const LocalRange range = in_tile(run, r, tile);
  std::int32_t n = 1;
  while (n < kRowsAtOnce && r + n < end) {
    const LocalRange next = in_tile(run, r + n, tile);
    if (next.first != range.first || next.last != range.last) break;
    ++n;
  }
  return n;
}

/// What any of the rows [r, r + n) sees of a tile.
HWY_INLINE LocalRange in_tile_of_any(const Run& run, std::int32_t r, std::int32_t n, const Tile& tile) {
  LocalRange any{kTile, 0};
  for (std::int32_t i = r; i < r + n; ++i) {
    const LocalRange range = in_tile(run, i, tile);
    if (range.empty()) continue;
    any.first = std::min(any.first, range.first);
    any.last = std::max(any.last, range.last);
  }
  return any;
}

/// Dot products of rows [begin, end) with a tile's keys into s.scores. Whatever no row of four sees may be left out.
HWY_INLINE void score_rows(const Run& run, std::int32_t begin, std::int32_t end, const View& view) {
  const Scratch& s = run.s;
  const auto query = [&](std::int32_t r) { return s.q + std::ptrdiff_t{r} * run.p.head_dim; };
  const auto score = [&](std::int32_t r) { return s.scores + std::ptrdiff_t{r - begin} * kTile; };
  if (view.wide_k == nullptr) {
    for (std::int32_t r = begin; r < end; r += kRowsAtOnce) {
      const std::int32_t n = std::min<std::int32_t>(kRowsAtOnce, end - r);
      const LocalRange any = in_tile_of_any(run, r, n, view.tile);
      if (any.empty()) continue;
      view.k_kernels->scores[n - 1](query(r), run.head_dim, view.k, static_cast<std::size_t>(any.first),
                                    static_cast<std::size_t>(any.last), score(r), view.k_ahead);
    }
    return;
  }
  constexpr auto kStep = static_cast<std::int32_t>(kLanes);
  for (std::int32_t t = view.tile.first / kStep * kStep; t < view.tile.last; t += kStep) {
    for (std::int32_t r = begin; r < end; r += kRowsAtOnce) {
      const std::int32_t n = std::min<std::int32_t>(kRowsAtOnce, end - r);
      const LocalRange any = in_tile_of_any(run, r, n, view.tile);
      if (any.last <= t || any.first >= t + kStep) continue;
      kWideScores[n - 1](query(r), run.head_dim, view.wide_k + std::ptrdiff_t{t} * run.p.head_dim, score(r) + t);
    }
  }
}

/// Scores, softmax and weighted sum of rows [begin, end) over a tile.
HWY_INLINE void run_rows(const Run& run, std::int32_t begin, std::int32_t end, const View& view) {
  const Scratch& s = run.s;
  score_rows(run, begin, end, view);
  const auto score = [&](std::int32_t r) { return s.scores + std::ptrdiff_t{r - begin} * kTile; };
  for (std::int32_t r = begin; r < end; ++r) {
    const LocalRange range = in_tile(run, r, view.tile);
    if (!range.empty()) soften(run.p, s, r, range, run.k_params, run.v_params, score(r));
  }
  // Tokens that a row does not see are left out rather than weighted with 0, since their values may be NaN.
  for (std::int32_t r = begin; r < end;) {
    const std::int32_t n = rows_alike(run, r, end, view.tile);
    const LocalRange range = in_tile(run, r, view.tile);
    if (!range.empty()) {
      view.v_kernels->weighted_sum[n - 1](score(r), view.v, static_cast<std::size_t>(range.first),
                                          static_cast<std::size_t>(range.last), s.o + std::ptrdiff_t{r} * run.p.v_dim,
                                          run.v_dim, view.v_ahead);
    }
    r += n;
  }
}

/// All rows over a tile, converted row by row as it is used. `next` is the tile after it, or the same one.
HWY_INLINE void run_direct(const Run& run, const Tile& tile, const Tile& next) {
  const Problem& p = run.p;
  const BlockLayout& l = p.args->layout;
  const Ahead values{tile.v, l.shared_kv ? 0 : static_cast<std::size_t>(l.v_row_bytes)};
  const Ahead next_keys{next.k, static_cast<std::size_t>(l.k_row_bytes)};
  run_rows(run, 0, run.rows, {tile, &row_kernels(p.k), tile.k, values, nullptr, &row_kernels(p.v), tile.v, next_keys});
}

/// All rows over a tile, converted once to float32.
HWY_INLINE void run_wide(const Run& run, const Tile& tile) {
  const Problem& p = run.p;
  const Scratch& s = run.s;
  const auto first = static_cast<std::size_t>(tile.first);
  const auto last = static_cast<std::size_t>(tile.last);
  row_kernels(p.k).widen_keys(tile.k, first, last, run.head_dim, s.wide_k);
  const char* wide_v[kTile];
  const bool convert = p.v != Stored::f32;
  if (convert) {
    row_kernels(p.v).widen_values(tile.v, first, last, run.v_dim, s.wide_v);
    for (std::int32_t t = 0; t < kTile; ++t) {
      wide_v[t] = reinterpret_cast<const char*>(s.wide_v + std::ptrdiff_t{t} * p.v_dim);
    }
  }
  const RowKernels* kernels = &row_kernels(Stored::f32);
  const View view{tile, kernels, nullptr, {}, s.wide_k, kernels, convert ? wide_v : tile.v, {}};
  for (std::int32_t r = 0; r < run.rows; r += kSubRows) run_rows(run, r, std::min(r + kSubRows, run.rows), view);
}

/// All rows over a tile.
HWY_INLINE void run_tile(Run& run, const Tile& tile, const Tile& next) {
  const Problem& p = run.p;
  if (is_quantised(p.k)) {
    copy_params(p, run.item.batch, run.item.kv_head, tile, false, run.k_params);
    convert_params(p.q, p.k, run.k_params);
  }
  if (is_quantised(p.v)) {
    copy_params(p, run.item.batch, run.item.kv_head, tile, true, run.v_params);
    convert_params(p.q, p.v, run.v_params);
  }
  if (run.direct()) {
    run_direct(run, tile, next);
  } else {
    run_wide(run, tile);
  }
}

/// Brings the parameters of a tile near.
HWY_INLINE void prefetch_params(const Run& run, const Tile& tile) {
  const auto lines = [](const char* from, std::size_t bytes, std::size_t) { prefetch(from, 0, bytes); };
  for (const bool value : {false, true}) {
    if (!is_quantised(value ? run.p.v : run.p.k)) continue;
    for_each_param_run(run.p, run.item.batch, run.item.kv_head, tile, value, lines);
  }
}

/// Ends a split: folds it into the totals or, if the item is not all of its rows, writes its partials.
HWY_INLINE void end_split(const Run& run, std::int32_t split, const Partials& partials) {
  const Problem& p = run.p;
  for (std::int32_t r = 0; r < run.rows; ++r) {
    const float sum_of_row = finish_split(p, run.s, r);
    const float* o = run.s.o + std::ptrdiff_t{r} * p.v_dim;
    if (run.item.partial < 0) {
      fold(p, run.s, r, run.s.max[r], sum_of_row, o);
    } else {
      const std::int64_t row = run.item.partial + std::int64_t{split - run.item.split} * run.rows + r;
      partials.max_sum[2 * row] = run.s.max[r];
      partials.max_sum[2 * row + 1] = sum_of_row;
      std::copy_n(o, p.v_dim, partials.o + row * p.v_dim);
    }
  }
}

/// Runs an item. Writes its outputs, or if it is not all of its rows, its partials.
inline void run_item(const Problem& p, const Item& item, const Scratch& s, const Partials& partials) {
  Run run(p, item, s);
  load_queries(p, item, s);
  LocalRange seen{std::numeric_limits<std::int32_t>::max(), 0};
  for (std::int32_t r = 0; r < run.rows; ++r) {
    s.visible[r] = p.visible(item.batch, item.token + r / item.heads);
    seen.first = std::min(seen.first, s.visible[r].first);
    seen.last = std::max(seen.last, s.visible[r].last);
  }
  clear_totals(p, run.rows, s);

  // 64 bits: the end of the last split may lie beyond 2^31.
  const std::int64_t end = std::min((std::int64_t{item.split} + item.splits) * kSplit, std::int64_t{seen.last});
  const auto find_tile = [&](std::int64_t from, Tile& tile) {
    const std::int64_t to = std::min(from / kTile * kTile + kTile, end);
    locate(p, item.batch, item.kv_head, static_cast<std::int32_t>(from), static_cast<std::int32_t>(to), tile);
  };
  Tile tiles[2];
  std::int64_t begin = std::max(std::int64_t{item.split} * kSplit, std::int64_t{seen.first});
  if (begin < end) find_tile(begin, tiles[0]);
  bool new_split = true;
  for (int current = 0; begin < end; current ^= 1) {
    if (new_split) clear_split(p, run.rows, s);
    const Tile& tile = tiles[current];
    const std::int64_t next_begin = std::int64_t{tile.base} + kTile;
    Tile& next = tiles[current ^ 1];
    if (next_begin < end) {
      find_tile(next_begin, next);
      prefetch_params(run, next);
    }
    run_tile(run, tile, next_begin < end ? next : tile);
    new_split = next_begin % kSplit == 0 || next_begin >= end;
    if (new_split) end_split(run, tile.base / kSplit, partials);
    begin = next_begin;
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
