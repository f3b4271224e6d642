#pragma once
// Which CTA does what. A work item is (sequence, kv head and tile of its rows, split at an absolute position). Items
// are laid on a line in that order, each as long as it is expected to take; CTA c takes those that start in its c-th of
// the line. Lengths are read on the device, so the host plans nothing.

#include <cstdint>

#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/ptx/relaxed_load.cuh"

namespace pagedkv::cuda::impl::decode {

/// One sequence of the batch, as the schedule sees it. Indices of keys are local to this context-parallel rank.
struct Sequence {
  int q_begin;
  int q_len;
  int k_len;
  int first;  ///< first key that any of its queries sees
  int last;   ///< one past the last
  int split_len;
  int split0;              ///< split that holds `first`
  int splits;              ///< at least 1, so that rows without keys are written too
  int row_tiles;           ///< of one kv head; 0 if there is no query
  std::int64_t table_row;  ///< its first entry of the block table

  __device__ int origin(int split) const { return (split0 + split) * split_len; }
  __device__ int begin(int split) const { return max(first, origin(split)); }
  __device__ int end(int split) const { return min(last, origin(split + 1)); }
};

/// How many of the first `n` positions lie on this rank.
__device__ __forceinline__ int local_count(const WorkParams& p, int n) {
  return p.own.size.divisor == 1 ? n : p.own.count(n);
}

/// What is read of a sequence.
struct Lengths {
  int q_begin;
  int q_end;
  int k_begin;
  int k_end;
  std::int32_t table_row;  ///< if the table has cumulative counts
  bool finished;

  __device__ bool operator==(const Lengths& o) const {
    return q_begin == o.q_begin && q_end == o.q_end && k_begin == o.k_begin && k_end == o.k_end &&
           table_row == o.table_row && finished == o.finished;
  }
};

/// When lengths are read.
enum class When : std::uint8_t {
  complete,  ///< when all that writes them has finished
  early      ///< while it may be running: they may be anything, and what cannot be true counts as empty
};

/// Starts loading them.
__device__ __forceinline__ Lengths fetch_lengths(const WorkParams& p, int b, When when) {
  const auto load = [&](const std::int32_t* at) { return when == When::early ? ptx::load_relaxed(at) : *at; };
  Lengths l{load(p.cu_q + b), load(p.cu_q + b + 1), load(p.cu_k + b), load(p.cu_k + b + 1), 0, false};
  if (p.table.cu_blocks != nullptr) l.table_row = load(p.table.cu_blocks + b);
  if (p.finished != nullptr) {
    l.finished = (when == When::early ? ptx::load_relaxed(p.finished + b) : p.finished[b]) != 0;
  }
  return l;
}

/// What fetch_lengths() gave, if it can be true.
__device__ __forceinline__ Lengths checked(const WorkParams& p, const Lengths& l, When when) {
  if (when == When::complete) return l;
  const std::int64_t q_len = std::int64_t{l.q_end} - l.q_begin;
  const std::int64_t k_len = std::int64_t{l.k_end} - l.k_begin;
  return q_len < 0 || q_len > kMostQueries || k_len < q_len || k_len > p.max_k_len ? Lengths{} : l;
}

__device__ __forceinline__ Lengths load_lengths(const WorkParams& p, int b, When when) {
  return checked(p, fetch_lengths(p, b, when), when);
}

__device__ __forceinline__ Sequence make_sequence(const WorkParams& p, int b, const Lengths& l, int rows_per_tile) {
  Sequence s;
  s.q_begin = l.q_begin;
  s.table_row = p.table.cu_blocks != nullptr ? std::int64_t{l.table_row} : std::int64_t{b} * p.table.row_stride;
  s.q_len = l.q_end - l.q_begin;
  s.k_len = l.k_end - l.k_begin;
  const int history = s.k_len - s.q_len;
  s.last = l.finished ? 0 : local_count(p, s.k_len);
  s.first = p.window > 0 ? min(local_count(p, max(history - p.window + 1, 0)), s.last) : 0;
  const bool is_long = s.k_len > p.long_len && s.k_len <= p.long_end;
  const int shift = s.k_len <= p.short_len ? p.short_split_shift : p.split_shift;
  const auto split_of = [&](int key) {
    return is_long ? static_cast<int>(static_cast<unsigned>(key) / kLongSplit) : key >> shift;
  };
  s.split_len = is_long ? kLongSplit : 1 << shift;
  s.split0 = split_of(s.first);
  s.splits = s.last > s.first ? split_of(s.last - 1) - s.split0 + 1 : 1;
  s.row_tiles = static_cast<int>(static_cast<unsigned>(s.q_len * p.group + rows_per_tile - 1) /
                                 static_cast<unsigned>(rows_per_tile));
  return s;
}

/// Not inlined: what is here is needed in several places, and the less code there is, the sooner it has been fetched.
/// `p` is in shared memory, because functions that are called read kernel parameters slowly.
__device__ __noinline__ inline Sequence load_sequence(const WorkParams& p, int b, int rows_per_tile, When when) {
  return make_sequence(p, b, load_lengths(p, b, when), rows_per_tile);
}

/// Expected time of the items of one (kv head, tile of rows), in tokens.
__device__ __forceinline__ int unit_cost(const WorkParams& p, const Sequence& s) {
  return p.unit_cost + s.splits * p.item_cost + (s.last - s.first) * p.token_cost;
}

/// A place on the line of items.
struct Cursor {
  Sequence seq;
  int b;
  int head;
  int row_tile;
  int split;              ///< counted from seq.split0
  std::int64_t position;  ///< where the item starts
  std::int64_t end;       ///< of this CTA's part

  __device__ bool valid() const { return position < end; }

  /// Where the next item starts, if there is one.
  __device__ std::int64_t next_position(const WorkParams& p) const {
    return position + (split == 0 ? p.unit_cost : 0) + p.item_cost + (seq.end(split) - seq.begin(split)) * p.token_cost;
  }

  /// Whether this is the first split of the item's rows and the CTA has the others too.
  __device__ bool begins_whole_rows(const WorkParams& p) const {
    const int before_last = seq.begin(seq.splits - 1) - seq.begin(0);
    return split == 0 && position + p.unit_cost + std::int64_t{seq.splits - 1} * p.item_cost +
                                 std::int64_t{before_last} * p.token_cost <
                             end;
  }

  /// Whether the next item, if there is one, belongs to another sequence.
  __device__ bool ends_sequence(const WorkParams& p) const {
    return split + 1 >= seq.splits && row_tile + 1 >= seq.row_tiles && head + 1 >= p.kv_heads;
  }

  /// Goes to the next item; valid() says whether there is one. Must be valid().
  __device__ void advance(const WorkParams& p, int rows_per_tile) {
    position = next_position(p);
    if (!valid()) return;
    if (++split < seq.splits) return;
    split = 0;
    if (++row_tile < seq.row_tiles) return;
    row_tile = 0;
    if (++head < p.kv_heads) return;
    head = 0;
    do {
      seq = load_sequence(p, ++b, rows_per_tile, When::complete);
    } while (seq.row_tiles == 0);
  }
};

/// A cursor in shared memory, one per warp that uses it: it is needed between tiles only and would cost registers in
/// their loop.
class SharedCursor {
 public:
  __device__ explicit SharedCursor(Cursor* at) : at_(at) {}
  __device__ void set(const Cursor& c) {
    if (threadIdx.x % 32 == 0) *at_ = c;
    __syncwarp();
  }
  __device__ const Cursor& get() const { return *at_; }

 private:
  Cursor* at_;
};

/// Whether every sequence has a thread of its own.
__device__ __forceinline__ bool one_thread_each(const WorkParams& p) {
  return p.batch <= kWarps * 32;
}

/// Start of a CTA's part, found by one thread for all.
struct Start {
  Cursor cursor;
  std::int64_t scan[kWarps];
};

/// a / b for a >= 0, b > 0: most lines are short enough for a 32-bit division, which is several times faster.
__device__ __forceinline__ std::int64_t divide(std::int64_t a, int b) {
  if (b == 1) return a;
  return a >> 32 == 0 ? static_cast<unsigned>(a) / static_cast<unsigned>(b) : a / b;
}

/// Finds this CTA's part of the line. All threads of the CTA call it; `p` and `start` are shared memory. `own` are the
/// lengths of sequence threadIdx.x, for batches with a thread for each; others are read here.
__device__ __noinline__ inline void find_start(const WorkParams& p, int rows_per_tile, Lengths own, When when,
                                               Start& start) {
  constexpr int kThreads = kWarps * 32;
  const int tid = static_cast<int>(threadIdx.x);
  const int strip = (p.batch + kThreads - 1) / kThreads;
  const int b0 = min(tid * strip, p.batch);
  const int b1 = min(b0 + strip, p.batch);
  const auto sequence = [&](int b) { return load_sequence(p, b, rows_per_tile, when); };

  std::int64_t mine = 0;
  Sequence s{};
#pragma unroll 1
  for (int b = b0; b < b1; ++b) {
    s = strip == 1 ? make_sequence(p, b, own, rows_per_tile) : sequence(b);
    mine += std::int64_t{unit_cost(p, s)} * (s.row_tiles * p.kv_heads);
  }
  std::int64_t before = mine;  // inclusive scan, then exclusive
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const std::int64_t x = __shfl_up_sync(0xffffffffu, before, d);
    if (tid % 32 >= d) before += x;
  }
  if (tid % 32 == 31) start.scan[tid / 32] = before;
  if (tid == 0) start.cursor.position = start.cursor.end = 0;
  __syncthreads();
  std::int64_t total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < tid / 32) before += start.scan[w];
    total += start.scan[w];
  }
  before -= mine;

  // Rounded down: where items of the same length come out even, part * c must not lie behind the start of one.
  const std::int64_t part = total <= gridDim.x ? 1 : divide(total, static_cast<int>(gridDim.x));
  const std::int64_t from = part * blockIdx.x;
  if (from >= before && from < before + mine) {
    // The first item that starts at or after `from`.
    std::int64_t at = before;
    int b = b0;
    int cost = unit_cost(p, s);
    if (b1 - b0 > 1) {
      for (;; ++b) {
        s = sequence(b);
        cost = unit_cost(p, s);
        if (at + std::int64_t{cost} * (s.row_tiles * p.kv_heads) > from) break;
        at += std::int64_t{cost} * (s.row_tiles * p.kv_heads);
      }
    }
    auto unit = static_cast<int>(divide(from - at, cost));
    at += std::int64_t{unit} * cost;
    int split = 0;
    if (at < from) {  // all splits but the first and the last are full
      const std::int64_t second = at + p.unit_cost + p.item_cost + (s.end(0) - s.begin(0)) * p.token_cost;
      const int full = p.item_cost + p.token_cost * s.split_len;
      const std::int64_t next = 1 + divide(max(from - second, std::int64_t{0}) + full - 1, full);
      if (next < s.splits) {
        split = static_cast<int>(next);
        at = second + (next - 1) * full;
      } else {
        at += cost;
        ++unit;
      }
    }
    if (unit == s.row_tiles * p.kv_heads) {
      unit = 0;
      do {
        if (++b < p.batch) s = sequence(b);
      } while (b < p.batch && s.q_len == 0);
    }
    // The end is not above `at` if no item starts in this part.
    const std::int64_t to = blockIdx.x + 1 == gridDim.x ? total : min(from + part, total);
    const int head = s.row_tiles > 1 ? unit / s.row_tiles : unit;
    start.cursor = {s, b, head, unit - head * s.row_tiles, split, at, to};
  }
  __syncthreads();
}

}  // namespace pagedkv::cuda::impl::decode
