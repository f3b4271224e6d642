// One item: its rows over its splits, tile by tile. Included once per SIMD target.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
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

#include "cpu/attention/integer-inl.h"
#include "cpu/attention/output-inl.h"
#include "cpu/attention/products-inl.h"
#include "cpu/attention/simd-inl.h"
#include "cpu/attention/softmax-inl.h"
#include "cpu/attention/wide-inl.h"

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

/// Up to this many rows, keys and values are converted as they are used, above it once for a tile.
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

  bool direct() const { return rows <= kDirectRows; }
};

/// A tile's keys or values as the kernels take them: one of three ways.
struct Side {
  // Row by row, as they are stored; multiplied as integers or by `kernels`.
  const char* const* rows = nullptr;
  const RowKernels* kernels = nullptr;
  Ahead ahead;  ///< what to bring near meanwhile
#if PAGEDKV_CPU_ATTENTION_INTEGERS
  KeyGroups groups;  ///< of keys that are multiplied as integers
#endif

  const float* wide = nullptr;           ///< keys from widen_keys()
  const std::uint8_t* turned = nullptr;  ///< from turn_keys() or turn_values()
};

struct View {
  const Tile& tile;
  Side k;
  Side v;
  Ahead softmax_ahead;  ///< what to bring near during the softmax
};

/// Part of row r's visible tokens that lies in the tile, in tokens of the tile.
HWY_INLINE LocalRange in_tile(const Run& run, std::int32_t r, const Tile& tile) {
  const LocalRange v = run.s.visible[r];
  return {std::clamp(v.first - tile.base, tile.first, tile.last),
          std::clamp(v.last - tile.base, tile.first, tile.last)};
}

/// Part of row r's visible tokens that lies in the tile, and which of them it does not see after all.
HWY_INLINE LocalRange in_tile(const Run& run, std::int32_t r, const Tile& tile, TileBits& hidden, bool& hides) {
  const LocalRange range = in_tile(run, r, tile);
  const std::int32_t token = run.item.token + r / run.item.heads;
  const std::int32_t count = hidden_tokens(run.p, run.item.batch, token, tile.base, range, hidden);
  hides = count > 0;
  return count == range.last - range.first ? LocalRange{0, 0} : range;
}

/// Calls f(first, last) for the runs of tokens of the tile that row r sees.
template <class F>
HWY_INLINE void for_each_seen_run(const Run& run, std::int32_t r, const Tile& tile, F f) {
  TileBits hidden;
  bool hides = false;
  const LocalRange range = in_tile(run, r, tile, hidden, hides);
  std::int32_t first = range.first;
  for (std::int32_t t = range.first; hides && t < range.last; ++t) {
    if (!hidden.test(t)) continue;
    if (first < t) f(first, t);
    first = t + 1;
  }
  if (first < range.last) f(first, range.last);
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
  const Side& k = view.k;
  const auto query = [&](std::int32_t r) { return s.q + std::ptrdiff_t{r} * run.p.head_dim; };
#if PAGEDKV_CPU_ATTENTION_INTEGERS
  const auto digits = [&](std::int32_t r) { return query_digits(s.q, run.head_dim, static_cast<std::size_t>(r)); };
#endif
  const auto score = [&](std::int32_t r) { return s.scores + std::ptrdiff_t{r - begin} * kTile; };
  if (k.rows != nullptr) {
    for (std::int32_t r = begin; r < end; r += kRowsAtOnce) {
      const std::int32_t n = std::min<std::int32_t>(kRowsAtOnce, end - r);
      const LocalRange any = in_tile_of_any(run, r, n, view.tile);
      if (any.empty()) continue;
      const auto first = static_cast<std::size_t>(any.first);
      const auto last = static_cast<std::size_t>(any.last);
#if PAGEDKV_CPU_ATTENTION_INTEGERS
      if (in_integers(run.p.k)) {
        integer_kernels(run.p.k).direct_scores[n - 1](digits(r), s.q_unit + r, run.head_dim, k.groups, first, last,
                                                      score(r), k.ahead);
        continue;
      }
#endif
      k.kernels->scores[n - 1](query(r), run.head_dim, k.rows, first, last, score(r), k.ahead);
    }
    return;
  }
  const std::int32_t step = k.turned != nullptr ? kStrip : static_cast<std::int32_t>(kLanes);
  for (std::int32_t t = view.tile.first / step * step; t < view.tile.last; t += step) {
    for (std::int32_t r = begin; r < end; r += kRowsAtOnce) {
      const std::int32_t n = std::min<std::int32_t>(kRowsAtOnce, end - r);
      const LocalRange any = in_tile_of_any(run, r, n, view.tile);
      if (any.last <= t || any.first >= t + step) continue;
      const std::ptrdiff_t at = std::ptrdiff_t{t} * run.p.head_dim;
#if PAGEDKV_CPU_ATTENTION_INTEGERS
      if (k.turned != nullptr) {
        kIntegerScores[n - 1](digits(r), s.q_unit + r, run.head_dim, k.turned + at, score(r) + t);
        continue;
      }
#endif
      kWideScores[n - 1](query(r), run.head_dim, k.wide + at, score(r) + t);
    }
  }
}

/// Adds the values, weighted by s.scores, to o of rows [begin, end).
HWY_INLINE void weigh_rows(const Run& run, std::int32_t begin, std::int32_t end, const View& view) {
  const Scratch& s = run.s;
  const Side& v = view.v;
  const auto weights = [&](std::int32_t r) { return s.scores + std::ptrdiff_t{r - begin} * kTile; };
  const auto output = [&](std::int32_t r) { return s.o + std::ptrdiff_t{r} * run.p.v_dim; };
#if PAGEDKV_CPU_ATTENTION_INTEGERS
  if (in_integers(run.p.v)) {
    for (std::int32_t r = begin; r < end; r += kRowsAtOnce) {
      const std::int32_t n = std::min<std::int32_t>(kRowsAtOnce, end - r);
      const LocalRange any = in_tile_of_any(run, r, n, view.tile);
      if (any.empty()) continue;
      const auto* digits = reinterpret_cast<const std::uint8_t*>(weights(r));
      const auto first = static_cast<std::size_t>(any.first);
      const auto last = static_cast<std::size_t>(any.last);
      const WeightUnit* units = s.weight_unit + (r - begin);
      if (v.turned != nullptr) {
        kIntegerWeightedSum[n - 1](digits, units, v.turned, first, last, output(r), run.v_dim);
      } else {
        integer_kernels(run.p.v).direct_weighted_sum[n - 1](digits, units, v.rows, first, last, output(r), run.v_dim,
                                                            v.ahead);
      }
    }
    return;
  }
#endif
  // Tokens that a row does not see are left out rather than weighted with 0, since their values may be NaN.
  const bool tree = run.p.args->tree_mask != nullptr;
  for (std::int32_t r = begin; r < end;) {
    const std::int32_t n = tree ? 1 : rows_alike(run, r, end, view.tile);
    for_each_seen_run(run, r, view.tile, [&](std::int32_t first, std::int32_t last) {
      v.kernels->weighted_sum[n - 1](weights(r), v.rows, static_cast<std::size_t>(first),
                                     static_cast<std::size_t>(last), output(r), run.v_dim, v.ahead);
    });
    r += n;
  }
}

/// Scores, softmax and weighted sum of rows [begin, end) over a tile.
HWY_INLINE void run_rows(const Run& run, std::int32_t begin, std::int32_t end, const View& view) {
  score_rows(run, begin, end, view);
  const auto look = [&](RowTile& rt) { rt.range = in_tile(run, rt.row, view.tile, rt.hidden, rt.hides); };
  soften(run.p, run.s, begin, end - begin, look, run.k_params, run.v_params, view.softmax_ahead);
  weigh_rows(run, begin, end, view);
}

#if PAGEDKV_CPU_ATTENTION_INTEGERS
/// Finds groups of keys whose rows follow each other, or copies them to `memory`, [kTile] rows.
HWY_INLINE KeyGroups group_keys(const Run& run, const Tile& tile, char* memory) {
  const BlockLayout& l = run.p.args->layout;
  KeyGroups groups{};
  groups.stride = static_cast<std::size_t>(l.k_row_bytes);
  for (std::int32_t t = tile.first / 16 * 16; t < tile.last; t += 16) {
    const std::int32_t in_block = (tile.base + t) % l.block_len;
    const char*& group = groups.first[t / 16];
    if (in_block + 16 <= l.block_len) {
      const std::int32_t known = std::max(t, tile.first);
      group = tile.k[known] - std::ptrdiff_t{known - t} * l.k_row_bytes;
      continue;
    }
    char* copy = memory + std::ptrdiff_t{t} * l.k_row_bytes;
    group = copy;
    for (std::int32_t i = t; i < t + 16; ++i) {
      std::memcpy(copy, tile.k[i], groups.stride);
      copy += l.k_row_bytes;
    }
  }
  return groups;
}
#endif

/// Prepares the keys of a tile.
HWY_INLINE Side keys_of(const Run& run, const Tile& tile, const Ahead& ahead) {
  const Problem& p = run.p;
  Side side;
  if (run.direct()) {
    side.rows = tile.k;
    side.kernels = &row_kernels(p.k);
    side.ahead = ahead;
#if PAGEDKV_CPU_ATTENTION_INTEGERS
    if (in_integers(p.k)) side.groups = group_keys(run, tile, reinterpret_cast<char*>(run.s.wide_k));
#endif
    return side;
  }
  const auto first = static_cast<std::size_t>(tile.first);
  const auto last = static_cast<std::size_t>(tile.last);
#if PAGEDKV_CPU_ATTENTION_INTEGERS
  if (in_integers(p.k)) {
    // The memory is that of float32 keys: room for the turned ones and for a copy of the stored ones.
    auto* out = reinterpret_cast<std::uint8_t*>(run.s.wide_k);
    const KeyGroups groups = group_keys(run, tile, reinterpret_cast<char*>(out + kTile * run.head_dim));
    integer_kernels(p.k).turn_keys(groups, first, last, run.head_dim, out);
    side.turned = out;
    return side;
  }
#endif
  row_kernels(p.k).widen_keys(tile.k, first, last, run.head_dim, run.s.wide_k);
  side.wide = run.s.wide_k;
  return side;
}

/// Prepares the values of a tile. `wide` has room for the addresses of converted rows.
HWY_INLINE Side values_of(const Run& run, const Tile& tile, const Ahead& ahead, const char* (&wide)[kTile]) {
  const Problem& p = run.p;
  Side side;
  side.rows = tile.v;
  side.kernels = &row_kernels(p.v);
  if (run.direct()) {
    side.ahead = ahead;
    return side;
  }
  const auto first = static_cast<std::size_t>(tile.first);
  const auto last = static_cast<std::size_t>(tile.last);
#if PAGEDKV_CPU_ATTENTION_INTEGERS
  if (in_integers(p.v)) {
    auto* out = reinterpret_cast<std::uint8_t*>(run.s.wide_v);
    integer_kernels(p.v).turn_values(tile.v, first, last, run.v_dim, out);
    side.turned = out;
    return side;
  }
#endif
  if (p.v == Stored::f32) return side;
  side.kernels->widen_values(tile.v, first, last, run.v_dim, run.s.wide_v);
  for (std::int32_t t = 0; t < kTile; ++t) {
    wide[t] = reinterpret_cast<const char*>(run.s.wide_v + std::ptrdiff_t{t} * p.v_dim);
  }
  side.kernels = &row_kernels(Stored::f32);
  side.rows = wide;
  return side;
}

/// All rows over a tile. `next` is the tile after it, or the same one.
HWY_INLINE void run_tile(Run& run, const Tile& tile, const Tile& next) {
  const Problem& p = run.p;
  if (is_quantised(p.k)) {
    gather_params(p, run.item.batch, run.item.kv_head, tile, false, run.k_params);
    convert_params(p.q, in_integers(p.k) ? 0.0F : half_range(p.k), run.k_params);
  }
  if (is_quantised(p.v)) {
    gather_params(p, run.item.batch, run.item.kv_head, tile, true, run.v_params);
    convert_params(p.q, half_range(p.v), run.v_params);
  }
  const BlockLayout& l = p.args->layout;
  const Rows values{tile.v, l.shared_kv ? 0 : kTile, static_cast<std::size_t>(l.v_row_bytes)};
  const Rows next_keys{next.k, kTile, static_cast<std::size_t>(l.k_row_bytes)};
  Ahead during_scores{values, {}};
  Ahead during_softmax{};
  Ahead during_sums{next_keys, {}};
  if (in_integers(p.k)) {
    // Codes are used up about as fast as memory gives them: they set out a tile earlier, evenly over the whole time.
    const std::int32_t quarter = values.count / 4;
    during_scores = {next_keys, values};
    during_softmax = {{next.v, quarter, values.bytes}, {}};
    during_sums = {{next.v + quarter, values.count - quarter, values.bytes}, next_keys};
  }
  const char* wide[kTile];
  const Side k = keys_of(run, tile, during_scores);
  const View view{tile, k, values_of(run, tile, during_sums, wide), run.direct() ? during_softmax : Ahead{}};
  for (std::int32_t r = 0; r < run.rows; r += kSubRows) run_rows(run, r, std::min(r + kSubRows, run.rows), view);
}

/// Brings the parameters of a tile near.
HWY_INLINE void prefetch_params(const Run& run, const Tile& tile) {
  const auto lines = [](const char* from, std::size_t bytes, std::size_t) { prefetch(from, bytes); };
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
