#pragma once
// Which CTA does what. A work item is (sequence, kv head and tile of its rows, split at an absolute position). Items
// are laid on a line in that order, each as long as it is expected to take; CTA c takes those that start in its c-th of
// the line. Lengths are read on the device, so the host plans nothing.

#include <cstdint>

#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"

namespace pagedkv::cuda::impl::decode {

/// One sequence of the batch, as the schedule sees it. Indices of keys are local to this context-parallel rank.
struct Sequence {
  int q_begin;
  int q_len;
  int k_len;
  int first;  ///< first key that any of its queries sees
  int last;   ///< one past the last
  int split_shift;
  int split0;              ///< split that holds `first`
  int splits;              ///< at least 1, so that rows without keys are written too
  int row_tiles;           ///< of one kv head; 0 if there is no query
  std::int64_t table_row;  ///< its first entry of the block table

  __device__ int begin(int split) const { return max(first, (split0 + split) << split_shift); }
  __device__ int end(int split) const { return min(last, (split0 + split + 1) << split_shift); }
};

/// How many of the first `n` positions lie on this rank.
__device__ __forceinline__ int local_count(const Params& p, int n) {
  return p.own.size.divisor == 1 ? n : p.own.count(n);
}

__device__ __forceinline__ Sequence load_sequence(const Params& p, int b, int rows_per_tile) {
  Sequence s;
  s.q_begin = __ldg(p.cu_q + b);
  const int q_end = __ldg(p.cu_q + b + 1);
  const int k_begin = __ldg(p.cu_k + b);
  const int k_end = __ldg(p.cu_k + b + 1);
  s.table_row =
      p.table.cu_blocks != nullptr ? std::int64_t{__ldg(p.table.cu_blocks + b)} : std::int64_t{b} * p.table.row_stride;
  const bool finished = p.finished != nullptr && __ldg(p.finished + b) != 0;
  s.q_len = q_end - s.q_begin;
  s.k_len = k_end - k_begin;
  const int history = s.k_len - s.q_len;
  s.last = finished ? 0 : local_count(p, s.k_len);
  s.first = p.window > 0 ? min(local_count(p, max(history - p.window + 1, 0)), s.last) : 0;
  s.split_shift = s.k_len <= p.short_len ? p.short_split_shift : p.split_shift;
  s.split0 = s.first >> s.split_shift;
  s.splits = s.last > s.first ? ((s.last - 1) >> s.split_shift) - s.split0 + 1 : 1;
  s.row_tiles = static_cast<int>(static_cast<unsigned>(s.q_len * p.group + rows_per_tile - 1) /
                                 static_cast<unsigned>(rows_per_tile));
  return s;
}

/// Expected time of the items of one (kv head, tile of rows), in tokens.
__device__ __forceinline__ int unit_cost(const Params& p, const Sequence& s) {
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

  /// Goes to the next item; valid() says whether there is one. Must be valid().
  __device__ void advance(const Params& p, int rows_per_tile) {
    position += (split == 0 ? p.unit_cost : 0) + p.item_cost + (seq.end(split) - seq.begin(split)) * p.token_cost;
    if (!valid()) return;
    if (++split < seq.splits) return;
    split = 0;
    if (++row_tile < seq.row_tiles) return;
    row_tile = 0;
    if (++head < p.kv_heads) return;
    head = 0;
    do {
      seq = load_sequence(p, ++b, rows_per_tile);
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

/// Start of a CTA's part, found by one thread for all.
struct Start {
  std::int64_t position;
  std::int64_t end;
  int b;
  int head;
  int row_tile;
  int split;
  std::int64_t scan[kWarps];
};

/// a / b for a >= 0, b > 0: most lines are short enough for a 32-bit division, which is several times faster.
__device__ __forceinline__ std::int64_t divide(std::int64_t a, int b) {
  return a < (std::int64_t{1} << 31) ? static_cast<int>(a) / b : a / b;
}

/// Finds this CTA's part of the line. All threads of the CTA call it; `start` is shared memory.
__device__ __forceinline__ Cursor find_start(const Params& p, int rows_per_tile, Start& start) {
  constexpr int kThreads = kWarps * 32;
  const int tid = static_cast<int>(threadIdx.x);
  const int strip = (p.batch + kThreads - 1) / kThreads;
  const int b0 = min(tid * strip, p.batch);
  const int b1 = min(b0 + strip, p.batch);

  std::int64_t mine = 0;
  Sequence s{};
  for (int b = b0; b < b1; ++b) {
    s = load_sequence(p, b, rows_per_tile);
    mine += std::int64_t{unit_cost(p, s)} * (s.row_tiles * p.kv_heads);
  }
  std::int64_t before = mine;  // inclusive scan, then exclusive
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const std::int64_t x = __shfl_up_sync(0xffffffffu, before, d);
    if (tid % 32 >= d) before += x;
  }
  if (tid % 32 == 31) start.scan[tid / 32] = before;
  if (tid == 0) start.position = start.end = 0;
  __syncthreads();
  std::int64_t total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w < tid / 32) before += start.scan[w];
    total += start.scan[w];
  }
  before -= mine;

  const std::int64_t part = divide(total + gridDim.x - 1, static_cast<int>(gridDim.x));
  const std::int64_t from = part * blockIdx.x;
  if (from >= before && from < before + mine) {
    // The first item that starts at or after `from`.
    std::int64_t at = before;
    int b = b0;
    int cost = unit_cost(p, s);
    if (b1 - b0 > 1) {
      for (;; ++b) {
        s = load_sequence(p, b, rows_per_tile);
        cost = unit_cost(p, s);
        if (at + std::int64_t{cost} * (s.row_tiles * p.kv_heads) > from) break;
        at += std::int64_t{cost} * (s.row_tiles * p.kv_heads);
      }
    }
    auto unit = static_cast<int>(divide(from - at, cost));
    at += std::int64_t{unit} * cost;
    int split = 0;
    while (split < s.splits && at < from) {
      at += (split == 0 ? p.unit_cost : 0) + p.item_cost + (s.end(split) - s.begin(split)) * p.token_cost;
      ++split;
    }
    if (split == s.splits) {
      split = 0;
      ++unit;
    }
    if (unit == s.row_tiles * p.kv_heads) {
      unit = 0;
      do {
        ++b;
      } while (b < p.batch && p.cu_q[b] == p.cu_q[b + 1]);
      if (b < p.batch) s = load_sequence(p, b, rows_per_tile);
    }
    start.position = at;
    start.end = min(from + part, total);  // not above `at` if no item starts in this part
    start.b = b;
    start.head = unit / s.row_tiles;
    start.row_tile = unit % s.row_tiles;
    start.split = split;
  }
  __syncthreads();
  Cursor c;
  c.position = start.position;
  c.end = start.end;
  if (c.valid()) {
    c.b = start.b;
    c.head = start.head;
    c.row_tile = start.row_tile;
    c.split = start.split;
    c.seq = load_sequence(p, c.b, rows_per_tile);
  }
  return c;
}

}  // namespace pagedkv::cuda::impl::decode
