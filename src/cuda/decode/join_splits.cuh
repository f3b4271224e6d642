#pragma once
// The results of a sequence's splits become one. The CTA that ends the last of them joins all, in their order; with
// many splits the last of each run of them joins the run, and the last of those the runs.

#include <cstdint>

#include "cuda/decode/arrival.cuh"
#include "cuda/decode/output.cuh"
#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/schedule.cuh"

namespace pagedkv::cuda::impl::decode {

/// Results of a row that are joined: part i is at first + i * step of Partials::o and ml + i of Partials::ml.
struct Parts {
  int first;
  int step;
  int ml;
  int count;
  int run;  ///< that they are the splits of; -1: all of the row
};

/// What the threads of a CTA share about it, in shared memory.
struct Joining {
  Cursor item;  ///< whose results went to the workspace
  Parts splits;
  Parts runs;               ///< whose results are joined then, if `splits` are those of a run
  std::uint64_t* counters;  ///< of the rows: the first of what makes them whole, the others of the splits of each run
  bool last;                ///< the item was the last of `splits`
};

/// The thread that arrives. Where rows are few its warp has none of them to write.
__device__ __forceinline__ bool arrives() {
  return threadIdx.x == (kWarps - 1) * 32;
}

/// How many of joining.splits are this CTA's.
struct Arrival {
  int own;  ///< 0: it is not yet time to arrive
};

/// What arriving with an item takes, except that its results are in the workspace. One thread calls it.
/// @param first_split the first split of the item's rows that the CTA had
/// @param more whether the CTA has further splits of these rows
__device__ __forceinline__ Arrival plan_arrival(const OutputParams& p, Joining& joining, const Cursor& item,
                                                int rows_per_tile, int first_split, bool more) {
  const int splits = item.seq.splits;
  const int shift = join_run_shift(splits);
  const int run = item.split >> shift;
  const int run0 = run << shift;
  const int count = min(splits - run0, 1 << shift);
  if (splits == 1 || (more && item.split + 1 < run0 + count)) return {0};
  joining.item = item;
  joining.splits = {run0, 1, run0, count, splits > kMostJoined ? run : -1};
  joining.runs = {0, 1 << shift, p.partials.splits, (splits + (1 << shift) - 1) >> shift, -1};
  joining.counters =
      p.partials.counters + OutputRow(p, item, item.row_tile * rows_per_tile).index * (1 + p.partials.runs);
  return {item.split + 1 - max(first_split, run0)};
}

/// The results are there. The same thread calls it behind a barrier.
__device__ __forceinline__ void arrive_split(Joining& joining, Arrival arrival) {
  const Parts& splits = joining.splits;
  // Most rows belong to one CTA, which needs no counter then: one makes a warp wait until its copies have landed.
  joining.last = arrival.own > 0 && (arrival.own == splits.count ||
                                     arrive(joining.counters + (splits.run + 1), arrival.own, splits.count));
}

/// Joins parts of all rows of a tile, in order. What a run gives takes the place of its first split.
template <class T, KvType V, int D, int Rows, int Ahead>
__device__ __forceinline__ void join_parts(const OutputParams& p, const Cursor& item, const Parts& parts) {
  const int row0 = item.row_tile * Rows;
  const int rows_here = min(Rows, item.seq.q_len * p.group_div.divisor - row0);
#pragma unroll 1
  for (int x = static_cast<int>(threadIdx.x); x < rows_here * (D / 4); x += kWarps * 32) {
    const OutputRow row(p, item, row0 + x / (D / 4));
    const int quad = x % (D / 4);
    float* o_at = p.partials.o + (row.index * p.partials.splits + parts.first) * D + quad * 4;
    float2* row_ml = p.partials.ml + row.index * (p.partials.splits + p.partials.runs);
    PartialRow all;
#pragma unroll 1
    for (int first = 0; first < parts.count; first += Ahead) {
      const float* from = o_at + std::int64_t{first} * parts.step * D;
      const float2* ml_from = row_ml + parts.ml + first;
      float4 y[Ahead];
      float2 ml[Ahead];
      // Parts that there are not change nothing, not even the sign of a zero.
#pragma unroll
      for (int i = 0; i < Ahead; ++i) {
        const bool valid = first + i < parts.count;
        y[i] = valid ? *reinterpret_cast<const float4*>(from) : float4{-0.0F, -0.0F, -0.0F, -0.0F};
        ml[i] = valid ? ml_from[i] : float2{kLow, -0.0F};
        from += parts.step * D;
      }
#pragma unroll
      for (int i = 0; i < Ahead; ++i) all.add({y[i], ml[i].x, ml[i].y});
    }
    if (parts.run < 0) {
      write_result<T, V>(p, item, row, quad, all.o, all.high, all.sum);
    } else {
      *reinterpret_cast<float4*>(o_at) = all.o;
      if (quad == 0) row_ml[p.partials.splits + parts.run] = {all.high, all.sum};
    }
  }
}

/// Joins what joining.item was the last of; `p` is in shared memory. All threads of the CTA call it.
/// @tparam Ahead parts that a thread loads at a time
template <class T, KvType V, int D, int Rows, int Ahead>
__device__ __noinline__ void join_splits(const OutputParams& p, Joining& joining) {
  const Parts* parts = &joining.splits;
#pragma unroll 1
  for (;;) {
    join_parts<T, V, D, Rows, Ahead>(p, joining.item, *parts);
    if (parts->run < 0) return;
    __syncthreads();
    if (arrives()) joining.last = arrive(joining.counters, 1, joining.runs.count);
    __syncthreads();
    if (!joining.last) return;
    parts = &joining.runs;
  }
}

}  // namespace pagedkv::cuda::impl::decode
