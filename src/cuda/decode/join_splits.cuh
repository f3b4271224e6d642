#pragma once
// The results of a sequence's splits become one. The CTA that ends the last of them joins all, in their order; with
// many splits the last of each group of them joins the group, and the last of those the groups.

#include <cstdint>

#include "cuda/decode/arrival.cuh"
#include "cuda/decode/output.cuh"
#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/schedule.cuh"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/shared_memory.cuh"

namespace pagedkv::cuda::impl::decode {

/// What the threads of a CTA share about it, in shared memory.
struct Joining {
  Cursor item;  ///< whose results went to the workspace last
  bool last;    ///< it was the last of those that are joined with it
};

/// Counters of an item's rows: the first of their splits or, if they have many, groups; the others of the splits of
/// each group.
__device__ __forceinline__ std::uint64_t* counters_of(const OutputParams& p, const Cursor& item, int rows_per_tile) {
  return p.partials.counters + OutputRow(p, item, item.row_tile * rows_per_tile).index * (1 + p.partials.groups);
}

/// The results of an item are in the workspace. To be called by one thread behind a barrier.
/// @param first_split the first split of the item's rows that the CTA had
/// @param more whether the CTA has further splits of these rows
__device__ __forceinline__ void arrive_split(const OutputParams& p, Joining& joining, const Cursor& item,
                                             int rows_per_tile, int first_split, bool more) {
  const int group0 = item.split / kJoinGroup * kJoinGroup;
  const int count = min(item.seq.splits - group0, kJoinGroup);
  if (more && item.split + 1 < group0 + count) return;
  const int own = item.split + 1 - max(first_split, group0);
  const bool groups = item.seq.splits > kJoinGroup;
  joining.item = item;
  // Most rows belong to one CTA, which needs no counter then: one makes a warp wait until its copies have landed.
  joining.last =
      own == count || arrive(counters_of(p, item, rows_per_tile) + (groups ? 1 + group0 / kJoinGroup : 0), own, count);
}

/// Results of a row that are joined: part i is at first + i * step of Partials::o and ml + i of Partials::ml.
struct Parts {
  int first;
  int step;
  int ml;
  int count;
  bool all;  ///< all of the row; otherwise they are splits of a group, whose runs are stored
};

/// What a part of four channels takes in shared memory.
inline constexpr int kStagedBytes = 16 + 8;

/// Joins parts of all rows of a tile, in order: each run of them, and these with each other. What a run of splits gives
/// takes the place of its first split. Each warp has columns of its own, four channels of a row each, and brings as
/// many parts as it can at a time into `room` bytes of shared memory, because the way there takes much longer than the
/// rest.
template <class T, int D, int Rows>
__device__ __forceinline__ void join_parts(const OutputParams& p, const Cursor& item, const Parts& parts, char* staging,
                                           int room) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row0 = item.row_tile * Rows;
  const int columns = min(Rows, item.seq.q_len * p.group_div.divisor - row0) * (D / 4);
  const int own = (columns + kWarps - 1) / kWarps;
  const int end = min((warp + 1) * own, columns);
#pragma unroll 1
  for (int begin = warp * own; begin < end; begin += 32) {
    const int here = min(end - begin, 32);
    const int at_a_time = 32 / here;  // parts, with all lanes
    const int lane_part = lane / here;
    const int column = lane % here;
    const OutputRow row(p, item, row0 + (begin + column) / (D / 4));
    const int dim = (begin + column) % (D / 4) * 4;
    float* o_at = p.partials.o + (row.index * p.partials.splits + parts.first) * D + dim;
    float2* row_ml = p.partials.ml + row.index * (p.partials.splits + p.partials.runs);
    const int pass = min(parts.count, room / (here * kStagedBytes));
    auto* staged_o = reinterpret_cast<float4*>(staging);
    auto* staged_ml = reinterpret_cast<float2*>(staging + pass * here * 16);
    PartialRow run;
    PartialRow all;
#pragma unroll 1
    for (int first = 0; first < parts.count; first += pass) {
      const int n = min(pass, parts.count - first);
      if (lane_part < at_a_time) {
#pragma unroll 4
        for (int i = lane_part; i < n; i += at_a_time) {
          ptx::copy_async_16(ptx::shared_address(staged_o + i * here + column),
                             o_at + std::int64_t{first + i} * parts.step * D);
          ptx::copy_async_small<8>(ptx::shared_address(staged_ml + i * here + column), row_ml + parts.ml + first + i);
        }
      }
      ptx::commit_copies();
      ptx::wait_copies<0>();
      __syncwarp();
      if (lane < here) {
#pragma unroll 4
        for (int i = 0; i < n; ++i) {
          const float2 ml = staged_ml[i * here + column];
          run.add({staged_o[i * here + column], ml.x, ml.y});
          const int part = first + i;
          if ((part + 1) % kJoinRun != 0 && part + 1 != parts.count) continue;
          if (parts.all) {
            all.add(run);
          } else {
            const int number = part / kJoinRun;
            *reinterpret_cast<float4*>(o_at + std::int64_t{number} * kJoinRun * D) = run.o;
            if (dim == 0) row_ml[p.partials.splits + parts.first / kJoinRun + number] = {run.high, run.sum};
          }
          run = {};
        }
      }
      __syncwarp();
    }
    if (parts.all && lane < here) write_result<T>(p, item, row, dim, all.o, all.high, all.sum);
  }
}

/// Joins what joining.item was the last of; `p` is in shared memory. All threads of the CTA call it.
/// @param staging shared memory of the warp, `room` bytes
template <class T, int D, int Rows>
__device__ __noinline__ void join_splits(const OutputParams& p, Joining& joining, char* staging, int room) {
  const Cursor& item = joining.item;
  const int splits = item.seq.splits;
  const int groups = (splits + kJoinGroup - 1) / kJoinGroup;
  const int group0 = item.split / kJoinGroup * kJoinGroup;
  Parts parts{0, 1, 0, splits, true};
  if (groups > 1) parts = {group0, 1, group0, min(splits - group0, kJoinGroup), false};
#pragma unroll 1
  for (;;) {
    join_parts<T, D, Rows>(p, item, parts, staging, room);
    if (parts.all) return;
    __syncthreads();
    if (threadIdx.x == 0) joining.last = arrive(counters_of(p, item, Rows), 1, groups);
    __syncthreads();
    if (!joining.last) return;
    parts = {0, kJoinRun, p.partials.splits, (splits + kJoinRun - 1) / kJoinRun, true};
  }
}

}  // namespace pagedkv::cuda::impl::decode
