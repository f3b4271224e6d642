#pragma once
// write_kv of few tokens, where nothing counts but the time from the first load to the last store. A CTA takes one
// token and some KV heads; a warp as many heads as it holds rows, keys or values. Rows go straight from memory to
// registers and back, and the token's sines are shared by all threads. All kinds of rows share one piece of code: what
// this kernel adds to the instruction caches slows down a decode kernel behind it.

#include <cuda_runtime.h>

#include <cstdint>

#include "common/block_lookup.h"
#include "cuda/prefetch.cuh"
#include "cuda/ptx/dependent_launch.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/relaxed_load.cuh"
#include "cuda/ptx/shared_memory.cuh"
#include "cuda/rope_rows.cuh"
#include "cuda/row.cuh"
#include "cuda/sequences.cuh"
#include "cuda/write_kv/any_row.cuh"
#include "cuda/write_kv/params.cuh"
#include "cuda/write_kv/policy.h"

namespace pagedkv::cuda::impl::write_kv {

/// Side and first head of a warp.
struct WarpHeads {
  bool keys;
  int first;
};

template <class Shape>
__device__ __forceinline__ WarpHeads warp_heads(const Params& p) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const bool keys = warp < kWarps / p.sides;
  return {keys, static_cast<int>(blockIdx.y) * p.heads_per_cta + (keys ? warp : warp - kWarps / 2) * Shape::kRows};
}

/// Brings the rows and the table entry of the CTA's token into L2, if it is the one new token of a sequence, as in a
/// step of decoding. Kernels that are still running may be writing the lengths: what is read here serves as address of
/// these prefetches only.
template <class T, class Shape>
__device__ __forceinline__ void prefetch_token(const Params& p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto b = static_cast<std::int32_t>(blockIdx.x);
  if (b >= p.batch) return;
  const std::int32_t begin = ptx::load_relaxed(p.cu_q + b);
  const std::int32_t end = ptx::load_relaxed(p.cu_q + b + 1);
  const std::int32_t k_begin = ptx::load_relaxed(p.cu_k + b);
  const std::int32_t k_end = ptx::load_relaxed(p.cu_k + b + 1);
  const std::int64_t entry = p.table.cu_blocks != nullptr ? std::int64_t{ptx::load_relaxed(p.table.cu_blocks + b)}
                                                          : std::int64_t{b} * p.table.row_stride;
  const std::int64_t k_len = std::int64_t{k_end} - k_begin;
  if (std::int64_t{end} - begin != 1 || k_len < 1 || k_len > INT32_MAX) return;
  const WarpHeads at = warp_heads<Shape>(p);
  static_assert(Shape::kRows * Shape::kDim * 2 == 32 * 32, "32 bytes for each lane");
  const int head = at.first + lane / Shape::kLanes;
  if (head < p.layout.kv_heads) {
    ptx::prefetch_l2(static_cast<const T*>(p.x[at.keys ? kKeys : kValues]) + p.strides.batch * b +
                     p.strides.start * begin + p.strides.head * head + lane % Shape::kLanes * 16);
  }
  std::int32_t block = 0;
  std::int32_t row = 0;
  p.block_len(block, row, max(p.owner.local(static_cast<std::int32_t>(k_len) - 1), 0));
  if (threadIdx.x == 0 && p.table.pointers != nullptr) ptx::prefetch_l2(p.table.pointers + entry + block);
  if (threadIdx.x == 0 && p.table.pointers == nullptr) ptx::prefetch_l2(p.table.indices + entry + block);
}

template <class T, class Shape, class KeyTransform>
__global__ void __launch_bounds__(kThreads) few_tokens_kernel(const __grid_constant__ Params p) {
  __shared__ Span spans[kMaxChunk];
  static_assert(Shape::kDim / 2 <= kThreads, "a thread for each pair");
  __shared__ __align__(16) float sines[Shape::kDim];  // the cosines of all pairs, then the sines
  ptx::in_shared(spans, sines);
  const int lane = static_cast<int>(threadIdx.x) % 32;

  prefetch_lengths(p.cu_q, p.cu_k, p.table, p.batch);
  prefetch_token<T, Shape>(p);
  // A thread's pair. Its frequency is a parameter, and slow to come: constants are cached line by line, for all lanes
  // at the same address.
  const auto pair = static_cast<int>(threadIdx.x);
  const std::uint64_t turn = pair < p.rope.dim / 2 ? p.rope.turn[pair] : 0;
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  const std::int64_t t = p.cu_q[0] + std::int64_t{blockIdx.x};
  const std::int64_t end = p.cu_q[p.batch];
  find_spans<kThreads>(p.cu_q, p.batch, t, min(t + 1, end), spans, [&](std::int32_t b) { return load_span(p, b); });
  if (t >= end) return;
  const Span s = spans[0];
  const auto index = static_cast<std::int32_t>(t - s.begin);
  const std::int32_t position = s.history + index;
  const std::int32_t local = p.owner.local(position);
  std::int32_t block = 0;
  std::int32_t row = 0;
  p.block_len(block, row, max(local, 0));
  if (local < 0 || block < s.readonly) return;

  // Lanes without a head of their own repeat the last one, to the last byte.
  const auto [keys, first] = warp_heads<Shape>(p);
  const int head = min(first + lane / Shape::kLanes, p.layout.kv_heads - 1);
  const Side side = keys ? kKeys : kValues;
  const RowKind kind = row_kind(p, side);
  const RowLane at{chunk_map<Shape>(kind.type, kind.rotation, p.rope.dim), lane % Shape::kLanes};
  RawRow<Shape> raw;
  read_row<Shape>(raw,
                  static_cast<const T*>(p.x[side]) + p.strides.batch * s.sequence + p.strides.start * s.begin +
                      p.strides.token * std::int64_t{index} + p.strides.head * head,
                  at);
  char* pointer = nullptr;
  std::int32_t number = 0;
  if (p.table.pointers != nullptr) {
    pointer = p.table.pointers[s.entry + block];
  } else {
    number = p.table.indices[s.entry + block];
  }
  if (pair < p.rope.dim / 2) {
    const core::SinCos turned = sines_of_pair(p.rope, turn, pair, s.sequence, index, position);
    sines[pair] = turned.cos;
    sines[pair + p.rope.dim / 2] = turned.sin;
  }
  __syncthreads();
  if (first >= p.layout.kv_heads) return;

  char* base = p.table.pointers != nullptr ? pointer : p.table.slab + number * p.layout.block_bytes;
  const BlockLayout& l = p.layout;
  RowTarget<T> to{head, static_cast<const T*>(p.bias[side]),
                  base + (keys ? l.k_data(p.layer, head, row) : l.v_data(p.layer, head, row)),
                  base + (keys ? l.k_param(p.layer, head, row) : l.v_param(p.layer, head, row)), true};
  if (to.bias != nullptr) to.bias += std::int64_t{head} * Shape::kDim;
  write_row<T, Shape, KeyTransform>(raw, kind, at, sines, p.rope.dim, to);
}

}  // namespace pagedkv::cuda::impl::write_kv
