#pragma once
// What the kernels of write_kv share.

#include <cstdint>

#include "common/block_lookup.h"
#include "cuda/row.cuh"
#include "cuda/sequences.cuh"
#include "pagedkv/core/context_parallel.h"
#include "pagedkv/core/fast_divmod.h"
#include "pagedkv/core/rope.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::write_kv {

/// Kernel arguments.
struct Params {
  BlockLayout layout;
  std::int32_t layer;
  BlockTable table;
  std::int32_t batch;
  const std::int32_t* cu_q;
  const std::int32_t* cu_k;
  const std::int32_t* readonly_blocks;
  const void* x[2];     ///< k and v
  const void* bias[2];  ///< of k and v
  TokenStrides strides;
  std::int64_t head_bytes;  ///< strides.head in bytes
  core::RopeTable rope;
  core::Ownership owner;
  core::FastDivmod block_len;
  std::int32_t sides;  ///< 1: keys only (shared_kv)
  std::int32_t chunk;
  std::int32_t heads_per_cta;
  std::int32_t heads_per_task;
  std::int32_t tasks_per_group;  ///< ceil(heads_per_cta / heads_per_task) * sides
  std::int32_t rope_stride;      ///< of RopeRows
  std::int32_t rope_bytes;       ///< of RopeRows, in front of the rings in shared memory
};

__device__ __forceinline__ Span load_span(const Params& p, std::int32_t b) {
  const std::int32_t begin = p.cu_q[b];
  const std::int32_t end = p.cu_q[b + 1];
  const std::int32_t k_len = p.cu_k[b + 1] - p.cu_k[b];
  const std::int32_t readonly = p.readonly_blocks != nullptr ? p.readonly_blocks[b] : 0;
  return Span{b, begin, end, k_len - (end - begin), readonly, common::first_entry(p.table, b)};
}

/// What happens to a row between RoPE and the statistics: nothing. A per-head transform of key rows (a rotation, a
/// centre, a scale) can take its place without another pass over memory: it sees the lane's part of the row in float32,
/// and all lanes of the warp call it.
struct IdentityTransform {
  template <class Shape>
  __device__ void operator()(Row<Shape>&, RowLane, std::int32_t /*head*/) const {}
  static constexpr bool kIdentity = true;
};

enum Side { kKeys = 0, kValues = 1 };

template <KvType Type>
inline constexpr int kCodeBits = Type == KvType::int8 ? 8 : 4;

/// Bytes of a stored row.
template <int D, KvType Type>
inline constexpr int kStoredBytes = Type == KvType::same   ? 2 * D
                                    : Type == KvType::int8 ? D
                                                           : D / 2;

}  // namespace pagedkv::cuda::impl::write_kv
