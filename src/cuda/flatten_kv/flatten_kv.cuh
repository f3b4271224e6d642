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

/// One side of one head: where its rows lie in a block and in the output.
template <class T>
struct HeadRows {
  std::int64_t data;   ///< bytes from the start of a block to row 0
  std::int64_t param;  ///< likewise
  std::int32_t data_step;
  std::int32_t param_step;
  T* y;  ///< where a token's offset 0 lies
};

/// Rows of all the CTA's tokens, by one warp.
template <class T, int D, KvType Type>
__device__ __forceinline__ void copy_rows(const HeadRows<T>& head, const Tokens& tokens, char* const* blocks) {
  constexpr int kChunks = D / 8;
  constexpr int kInFlight = kChunksInFlight<StoredChunk<Type>::kBytes>;
  constexpr int kStep = 32 * kInFlight;
  const int items = tokens.count * kChunks;
  for (int first = static_cast<int>(threadIdx.x) % 32; first < items; first += kStep) {
    StoredChunk<Type> chunk[kInFlight];
    std::uint32_t param[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int item = first + 32 * i;
      const int token = item / kChunks;
      if (item < items) {
        const char* block = blocks[token];
        const int row = tokens.row[token];
        chunk[i].load(block + head.data + (row * head.data_step + item % kChunks * StoredChunk<Type>::kBytes));
        if constexpr (StoredChunk<Type>::kHasParam) {
          param[i] = ptx::load_4(block + head.param + row * head.param_step);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int item = first + 32 * i;
      const int token = item / kChunks;
      if (item < items) {
        ptx::store_16(head.y + tokens.offset[token] + item % kChunks * 8, decode_chunk<T>(chunk[i], param[i]));
      }
    }
  }
}

/// Keys of all the CTA's tokens with RoPE, by one warp: a row's T first, as without RoPE, then rotated.
template <class T, int D, KvType Type, Rotation R>
__device__ __forceinline__ void rotate_rows(const HeadRows<T>& head, const Tokens& tokens, char* const* blocks,
                                            const RopeRows& rope_rows, int rope_dim) {
  using Shape = RowShape<D, kRowLanes<D>>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const RowLane at{chunk_map<Shape, KvType::same, R>(rope_dim), lane % Shape::kLanes};
  for (int token = lane / Shape::kLanes; token < tokens.count; token += Shape::kRows) {
    const char* block = blocks[token];
    const int stored_row = tokens.row[token];
    std::uint32_t param = 0;
    if constexpr (StoredChunk<Type>::kHasParam) param = ptx::load_4(block + head.param + stored_row * head.param_step);
    Row<Shape> row;
#pragma unroll
    for (int i = 0; i < Shape::kSlots; ++i) {
      const int s = at.lane + i * Shape::kLanes;
      if (!has_slot<Shape>(s)) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int chunk = half == 0 ? at.map.first(s) : at.map.second(s, Shape::kPairs);
        StoredChunk<Type> stored;
        stored.load(block + head.data + (stored_row * head.data_step + chunk * StoredChunk<Type>::kBytes));
        unpack_chunk<T>(row.x[i][half], decode_chunk<T>(stored, param));
      }
    }
    const float* cosine = rope_rows.cosines(token);
    rotate_row<Shape, R>(row, cosine, cosine + rope_dim / 2, rope_dim, at);
    store_same<Shape, T>(LinearRow{reinterpret_cast<char*>(head.y + tokens.offset[token])}, row, at);
  }
}

template <class T, int D, bool kRope>
__global__ void __launch_bounds__(kThreads, kRope ? kCtasPerSmRope : kCtasPerSm)
    kernel(const __grid_constant__ Params p) {
  PAGEDKV_DYNAMIC_SHARED(float4, dynamic_shared);
  __shared__ Span spans[kMaxChunk];
  __shared__ Tokens tokens;
  __shared__ char* blocks[kMaxChunk];
  ptx::in_shared(spans, tokens, blocks);

  const int tid = static_cast<int>(threadIdx.x);
  const int warp = tid / 32;
  const std::int32_t origin = p.cu_k[0];
  const std::int64_t t0 = origin + std::int64_t{blockIdx.x} * kChunk;
  const std::int64_t t1 = min(t0 + kChunk, std::int64_t{p.cu_k[p.batch]});
  find_spans<kThreads>(p.cu_k, p.batch, t0, t1, spans, [&](std::int32_t b) {
    return Span{b, p.cu_k[b], p.cu_k[b + 1], 0, 0, common::first_entry(p.table, b)};
  });
  if (t0 >= t1) return;
  if (warp == 0) {
    // With context parallelism a sequence has a slot for each of its tokens, and this rank fills the first of them.
    list_tokens(tokens, spans, t0, t1, p.block_len, p.strides, origin, [&](const Span& s, std::int32_t index) {
      if (index >= p.owner.count(s.end - s.begin)) return Place{0, -1};
      return Place{p.owner.position(index), index};
    });
    __syncwarp();
    if (tid < tokens.count) blocks[tid] = common::entry_address(p.table, p.layout.block_bytes, tokens.entry[tid]);
  }
  __syncthreads();

  const RopeRows rope_rows{reinterpret_cast<float*>(dynamic_shared), p.rope_stride};
  if constexpr (kRope) {
    __shared__ __align__(16) std::uint64_t turns[core::kMaxRopePairs];
    ptx::in_shared(turns);
    if (tid < tokens.count) tokens.index[tid] = tokens.position[tid];  // what mrope looks positions up by
    load_turns(turns, p.rope);
    __syncthreads();
    fill_rope_rows(rope_rows, turns, p.rope, tokens);
    __syncthreads();
  }

  const int cta_head = static_cast<int>(blockIdx.y) * p.heads_per_cta;
  const int heads = min(p.heads_per_cta, p.layout.kv_heads - cta_head);
  for (int i = warp; i < 2 * heads; i += kWarps) {
    const int side = i >= heads ? 1 : 0;
    if (p.y[side] == nullptr) continue;
    const int h = cta_head + i - side * heads;
    const BlockLayout& l = p.layout;
    HeadRows<T> head;
    head.data = side == 0 ? l.k_data(p.layer, h, 0) : l.v_data(p.layer, h, 0);
    head.param = side == 0 ? l.k_param(p.layer, h, 0) : l.v_param(p.layer, h, 0);
    head.data_step = side == 0 ? l.k_row_bytes : l.v_row_bytes;
    head.param_step = side == 0 ? l.k_param_bytes : l.v_param_bytes;
    head.y = static_cast<T*>(p.y[side]) + h * p.strides.head;
    const auto run = [&]<KvType Type>() {
      if constexpr (kRope) {
        if (side == 0 && p.rope.pairs == RopePairs::interleaved) {
          return rotate_rows<T, D, Type, Rotation::interleaved>(head, tokens, blocks, rope_rows, p.rope.dim);
        }
        if (side == 0) {
          return rotate_rows<T, D, Type, Rotation::half_split>(head, tokens, blocks, rope_rows, p.rope.dim);
        }
      }
      copy_rows<T, D, Type>(head, tokens, blocks);
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
  if (args.rope.dim > 0) {
    p.rope_stride = rope_row_floats(args.rope.dim, kRowLanes<kDim>, args.rope.pairs == RopePairs::half_split);
    const std::size_t shared = rope_rows_bytes(kChunk, p.rope_stride);
    launch("flatten_kv", &kernel<T, kDim, true>, {ctas, kThreads, shared, stream}, p);
  } else {
    launch("flatten_kv", &kernel<T, kDim, false>, {ctas, kThreads, 0, stream}, p);
  }
}

}  // namespace pagedkv::cuda::impl::flatten_kv
