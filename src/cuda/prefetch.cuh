#pragma once
// What a kernel can do before the kernels before it have finished: nothing is read yet, but brought nearer.

#include <cstdint>

#include "cuda/ptx/memory.cuh"
#include "pagedkv/ops.h"

namespace pagedkv::cuda {

/// Brings `n` elements into L2; `array` may be null.
template <class V>
__device__ __forceinline__ void prefetch_array(const V* array, std::int32_t n) {
  constexpr int kLine = 128 / static_cast<int>(sizeof(V));
  if (array == nullptr) return;
  for (int i = static_cast<int>(threadIdx.x) * kLine; i < n; i += static_cast<int>(blockDim.x) * kLine) {
    ptx::prefetch_l2(array + i);
  }
}

/// Lengths and table rows of a batch, on which everything else waits. One CTA of a grid does it for all; the others
/// return at once. cu_q may be null.
__device__ __forceinline__ void prefetch_lengths(const std::int32_t* cu_q, const std::int32_t* cu_k,
                                                 const BlockTable& table, std::int32_t batch) {
  if (blockIdx.x != 0 || blockIdx.y != 0) return;
  prefetch_array(cu_q, batch + 1);
  prefetch_array(cu_k, batch + 1);
  prefetch_array(table.cu_blocks, batch + 1);
}

}  // namespace pagedkv::cuda
