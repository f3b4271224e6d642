#pragma once
// How a call is cut into items, and what of the caller's workspace each of them uses.

#include <cstddef>
#include <cstdint>

#include "cpu/attention/problem.h"

namespace pagedkv::cpu::attention {

/// Rows that go through scores, softmax and weighted sum together, so that their scores stay in the nearest cache.
inline constexpr std::int32_t kSubRows = 32;

/// Rows of q that the kernels handle at once, so that an element is converted once for all of them.
inline constexpr int kRowsAtOnce = 4;

/// Lanes of the widest vectors: sums by lane are kept in rows of this many.
inline constexpr std::int32_t kStateLanes = 16;

/// What a row's fixed-point weights mean.
struct WeightUnit {
  float unit;    ///< multiplies sums of weight * code; NaN if a weight is not finite
  float centre;  ///< to be taken from such a sum first, so that codes count less half their range
};

/// One thread's memory. Row-wise arrays have `rows` rows.
struct Scratch {
  float* q;  ///< [rows, to a multiple of kRowsAtOnce][head_dim], scaled, in the order that K's elements are used in; or
             ///< its digits
  float* q_unit;            ///< [rows] unit of the digits
  float* q_sum;             ///< [rows] sum of q
  float* scores;            ///< [kSubRows][kTile] scores, then weights; or digits of weights
  WeightUnit* weight_unit;  ///< [kSubRows]
  float* wide_k;            ///< [kTile][head_dim] a tile's keys, converted or turned
  float* wide_v;            ///< [kTile][v_dim]
  LocalRange* visible;      ///< [rows]
  // State of the split under way, and of those folded before it.
  float* max;         ///< [rows] largest score, in powers of two
  float* sum_lanes;   ///< [rows][kStateLanes] sum of 2^(score - max), by lane
  float* zero_lanes;  ///< [rows][kStateLanes] sum of 2^(score - max) * zero of V, by lane
  float* o;           ///< [rows][v_dim] sum of 2^(score - max) * V, not normalised
  float* total_max;   ///< [rows]
  float* total_sum;   ///< [rows]
  float* total_o;     ///< [rows][v_dim]
};

/// Results of single splits: row r has {max, sum} and an o that is not normalised.
struct Partials {
  float* max_sum;  ///< [rows][2]
  float* o;        ///< [rows][v_dim]
};

/// The cut of a call, a function of its arguments and the number of threads. Results do not depend on it.
struct Plan {
  std::int32_t tokens = 1;  ///< new tokens of an item, at most
  std::int32_t heads = 1;   ///< query heads of an item, at most
  std::int32_t splits = 1;  ///< splits of an item, at most
  std::int32_t workers = 1;
  std::int64_t items = 0;
  std::int64_t folds = 0;  ///< groups of rows whose splits are spread over several items
  std::int64_t partial_rows = 0;
};

Plan make_plan(const Problem& problem, int threads);

/// The caller's workspace, divided. Without a base only `bytes` is meaningful.
struct WorkspaceMap {
  Item* items;
  Item* folds;
  Partials partials;
  char* scratch;  ///< [workers][scratch_bytes]
  std::size_t scratch_bytes;
  std::size_t bytes;

  WorkspaceMap(const Problem& problem, const Plan& plan, char* base);
};

/// Divides one worker's memory, which may be null; returns its size.
std::size_t map_scratch(const Problem& problem, const Plan& plan, char* base, Scratch& scratch);

/// Writes the items and folds of a plan.
void list_items(const Problem& problem, const Plan& plan, Item* items, Item* folds);

}  // namespace pagedkv::cpu::attention
