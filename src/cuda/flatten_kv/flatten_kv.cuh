#pragma once
// flatten_kv: docs/kernels.md has the mapping and the numbers behind it.
//
// A CTA takes a chunk of the batch's tokens and some KV heads. A warp takes one side of one head and streams its rows,
// 8 elements per lane and access, so that rows are read and written as wide as they are stored. Keys with RoPE go
// through registers as in write_kv instead.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "common/block_lookup.h"
#include "cuda/codes.cuh"
#include "cuda/device.h"
#include "cuda/flatten_kv/flatten_kv.h"
#include "cuda/flatten_kv/policy.h"
#include "cuda/launch.cuh"
#include "cuda/prefetch.cuh"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/dependent_launch.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/shared_memory.cuh"
#include "cuda/rope_rows.cuh"
#include "cuda/row.cuh"
#include "cuda/sequences.cuh"
#include "pagedkv/core/context_parallel.h"
#include "pagedkv/core/fast_divmod.h"

namespace pagedkv::cuda::impl::flatten_kv {

/// Kernel arguments.
struct Params {
  BlockLayout layout;
  std::int32_t layer;
  BlockTable table;
  std::int32_t batch;
  const std::int32_t* cu_k;
  void* y[2];  ///< k and v; null: that side is left out
  TokenStrides strides;
  core::RopeTable rope;
  core::Ownership owner;
  core::FastDivmod block_len;
  std::int32_t heads_per_cta;
  std::int32_t rope_stride;  ///< of RopeRows
};

/// Where the rows of the CTA's tokens lie, in shared memory. Entries past the tokens repeat the last one, so that a
/// round of loads need not look where they end.
struct Rows {
  static constexpr int kEntries = 32;  ///< one per lane
  const char* data[2][kEntries];       ///< of head 0, k and v
  const char* param[2][kEntries];      ///< likewise
  std::int64_t offset[kEntries];       ///< of head 0 in k and v, elements
};

/// One side of one head.
template <class T>
struct HeadRows {
  const char* const* data;  ///< of Rows
  const char* const* param;
  std::int64_t data_shift;  ///< bytes from head 0
  std::int64_t param_shift;
  T* y;  ///< where a token's offset 0 lies
};

/// Lists the rows of the tokens, at least one. One warp calls it.
__device__ __forceinline__ void fill_rows(Rows& rows, const Tokens& tokens, const Params& p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int token = min(lane, tokens.count - 1);
  const char* block = common::entry_address(p.table, p.layout.block_bytes, tokens.entry[token]);
  const std::int32_t row = tokens.row[token];
  rows.data[0][lane] = block + p.layout.k_data(p.layer, 0, row);
  rows.data[1][lane] = block + p.layout.v_data(p.layer, 0, row);
  rows.param[0][lane] = block + p.layout.k_param(p.layer, 0, row);
  rows.param[1][lane] = block + p.layout.v_param(p.layer, 0, row);
  rows.offset[lane] = tokens.offset[token];
}

/// Rows of all the CTA's tokens, by one warp. A round's loads are issued back to back, without a branch between them.
template <class T, int D, KvType Type>
__device__ __forceinline__ void copy_rows(const HeadRows<T>& head, const std::int64_t* offset, int tokens) {
  using Stored = StoredChunk<Type>;
  constexpr int kChunks = D / 8;
  constexpr int kRound = kInFlight<D, Stored::kBytes>;
  constexpr int kRounds = (kItems<D> + kRound - 1) / kRound;
  static_assert(32 * kRound * kRounds <= Rows::kEntries * kChunks);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int items = tokens * kChunks;
  std::uint32_t params = 0;  // of token `lane`
  if constexpr (Stored::kHasParam) params = ptx::load_4(head.param[lane] + head.param_shift);
  // Where 32 is a multiple of kChunks, a lane's chunk is the same in all items and its tokens lie 32 / kChunks apart.
  const auto token_of = [&](int first, int i) {
    return 32 % kChunks == 0 ? (first + lane) / kChunks + i * (32 / kChunks) : (first + 32 * i + lane) / kChunks;
  };
  const auto chunk_of = [&](int first, int i) {
    return 32 % kChunks == 0 ? lane % kChunks : (first + 32 * i + lane) % kChunks;
  };
#pragma unroll 1
  for (int first = 0; first < items; first += 32 * kRound) {
    Stored stored[kRound];
#pragma unroll
    for (int i = 0; i < kRound; ++i) {
      stored[i].load(head.data[token_of(first, i)] + (head.data_shift + chunk_of(first, i) * Stored::kBytes));
    }
#pragma unroll
    for (int i = 0; i < kRound; ++i) {
      const int token = token_of(first, i);
      std::uint32_t param = 0;
      if constexpr (Stored::kHasParam) param = __shfl_sync(0xffffffffu, params, token);
      const uint4 x = decode_chunk<T>(stored[i], param);
      if (token < tokens) ptx::store_once_16(head.y + (offset[token] + chunk_of(first, i) * 8), x);
    }
  }
}

/// Keys of all the CTA's tokens with RoPE, by one warp: a row's T first, as without RoPE, then rotated.
template <class T, int D, KvType Type, Rotation R>
__device__ __forceinline__ void rotate_rows(const HeadRows<T>& head, const std::int64_t* offset, int tokens,
                                            const RopeRows& rope_rows, int rope_dim) {
  using Shape = RowShape<D, kRowLanes<D>>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const RowLane at{chunk_map<Shape>(KvType::same, R, rope_dim), lane % Shape::kLanes};
  for (int token = lane / Shape::kLanes; token < tokens; token += Shape::kRows) {
    std::uint32_t param = 0;
    if constexpr (StoredChunk<Type>::kHasParam) param = ptx::load_4(head.param[token] + head.param_shift);
    Row<Shape> row;
#pragma unroll
    for (int i = 0; i < Shape::kSlots; ++i) {
      const int s = at.lane + i * Shape::kLanes;
      if (!has_slot<Shape>(s)) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int chunk = half == 0 ? at.map.first(s) : at.map.second(s, Shape::kPairs);
        StoredChunk<Type> stored;
        stored.load(head.data[token] + (head.data_shift + chunk * StoredChunk<Type>::kBytes));
        unpack_chunk<T>(row.x[i][half], decode_chunk<T>(stored, param));
      }
    }
    const float* cosine = rope_rows.cosines(token);
    rotate_row<Shape, R>(row, cosine, cosine + rope_dim / 2, rope_dim, at);
    store_same<Shape, T>(LinearRow{reinterpret_cast<char*>(head.y + offset[token])}, row, at);
  }
}

template <class T, int D, bool kRope>
__global__ void __launch_bounds__(64 * kHeads, kRope ? kCtasPerSmRope : kCtasPerSm)
    kernel(const __grid_constant__ Params p) {
  PAGEDKV_DYNAMIC_SHARED(float4, dynamic_shared);
  __shared__ Tokens tokens;
  __shared__ Rows rows;
  ptx::in_shared(tokens, rows);

  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  prefetch_lengths(nullptr, p.cu_k, p.table, p.batch);
  // The kernel after this one may start once all that came before is complete.
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  if (warp == 0) {
    const auto load = [&](std::int32_t b) {
      return Span{b, p.cu_k[b], p.cu_k[b + 1], 0, 0, common::first_entry(p.table, b)};
    };
    const TokenChunk c = find_chunk(p.cu_k, p.batch, std::int64_t{blockIdx.x} * kChunk, kChunk, load);
    // With context parallelism a sequence has a slot for each of its tokens, and this rank fills the first of them.
    list_tokens(tokens, c.span, c.t0, c.t1, p.block_len, p.strides, c.origin, [&](const Span& s, std::int32_t index) {
      if (index >= p.owner.count(s.end - s.begin)) return Place{0, -1};
      return Place{p.owner.position(index), index};
    });
    __syncwarp();
    if (tokens.count > 0) fill_rows(rows, tokens, p);
  }
  __syncthreads();
  if (tokens.count == 0) return;

  auto* const axes = reinterpret_cast<AxisIds*>(dynamic_shared);
  const RopeRows rope_rows{reinterpret_cast<float*>(axes + 1), p.rope_stride};
  if constexpr (kRope) {
    __shared__ __align__(16) std::uint64_t turns[core::kMaxRopePairs];
    ptx::in_shared(turns);
    load_turns(turns, p.rope);
    if (p.rope.mrope != MropeMode::none && warp == 0) {
      if (tid < tokens.count) tokens.index[tid] = tokens.position[tid];  // what mrope looks positions up by
      start_axis_ids(*axes, p.rope, tokens);
      ptx::commit_copies();
      ptx::wait_copies<0>();
    }
    __syncthreads();
    fill_rope_rows(rope_rows, turns, p.rope, tokens, *axes);
    __syncthreads();
  }

  const int side = warp >= p.heads_per_cta ? 1 : 0;
  const int h = static_cast<int>(blockIdx.y) * p.heads_per_cta + warp - side * p.heads_per_cta;
  if (h >= p.layout.kv_heads || p.y[side] == nullptr) return;
  const BlockLayout& l = p.layout;
  HeadRows<T> head;
  head.data = rows.data[side];
  head.param = rows.param[side];
  head.data_shift = std::int64_t{h} * l.head_data_bytes;
  head.param_shift = std::int64_t{h} * l.head_param_bytes;
  head.y = static_cast<T*>(p.y[side]) + h * p.strides.head;
  const auto run = [&]<KvType Type>() {
    if constexpr (kRope) {
      if (side == 0 && p.rope.pairs == RopePairs::interleaved) {
        return rotate_rows<T, D, Type, Rotation::interleaved>(head, rows.offset, tokens.count, rope_rows, p.rope.dim);
      }
      if (side == 0) {
        return rotate_rows<T, D, Type, Rotation::half_split>(head, rows.offset, tokens.count, rope_rows, p.rope.dim);
      }
    }
    copy_rows<T, D, Type>(head, rows.offset, tokens.count);
  };
  switch (side == 0 ? l.format.k : l.format.v) {
    case KvType::same:
      run.template operator()<KvType::same>();
      break;
    case KvType::int8:
      run.template operator()<KvType::int8>();
      break;
    case KvType::int4:
      run.template operator()<KvType::int4>();
      break;
  }
}

template <class Kernel>
void Launch<Kernel>::run(const FlattenKvArgs& args, Stream stream) {
  using T = typename Kernel::T;
  constexpr int kDim = Kernel::kHeadDim;

  const std::int64_t tokens = std::min<std::int64_t>(args.max_total_k, INT32_MAX);
  const Grid grid = choose_grid(tokens, args.layout.kv_heads, current_device().multiprocessors);

  Params p{};
  p.layout = args.layout;
  p.layer = args.layer;
  p.table = args.table;
  p.batch = args.batch;
  p.cu_k = args.cu_k;
  p.y[0] = args.k;
  p.y[1] = args.v;
  p.strides = args.strides;
  p.rope = args.rope;
  p.owner = core::Ownership(args.cp);
  p.block_len = core::FastDivmod(args.layout.block_len);
  p.heads_per_cta = grid.heads;
  const dim3 ctas(static_cast<unsigned>(grid.chunks), static_cast<unsigned>(grid.head_groups));
  const auto threads = static_cast<unsigned>(64 * grid.heads);
  const bool overlap = current_device().arch >= 90;
  if (args.rope.dim > 0) {
    p.rope_stride = rope_row_floats(args.rope.dim, kRowLanes<kDim>, args.rope.pairs == RopePairs::half_split);
    const std::size_t shared = sizeof(AxisIds) + rope_rows_bytes(kChunk, p.rope_stride);
    launch("flatten_kv", &kernel<T, kDim, true>, {ctas, threads, shared, stream, overlap}, p);
  } else {
    launch("flatten_kv", &kernel<T, kDim, false>, {ctas, threads, 0, stream, overlap}, p);
  }
}

}  // namespace pagedkv::cuda::impl::flatten_kv
