#pragma once
// Programmatic dependent launch over two kernels: the second one starts while both still wait for what came before the
// first, and learns from a word in device memory when that is complete. Its own wait would be for the end of the first.
//
// The word needs no preparation. The first kernel clears it before it lets the second one start, and the second one
// lets nobody start before it has seen the word set: so no one polls the word of an earlier call, nor clears a later
// one's. docs/decisions/016 has the reasoning.

#include <cstdint>

#include "cuda/ptx/dependent_launch.cuh"
#include "cuda/ptx/relaxed_load.cuh"
#include "cuda/ptx/signal.cuh"

namespace pagedkv::cuda {

/// The first kernel, before it waits: lets the second one start. `done` may be null: then that one comes later, with
/// tell_next(), and waits for all of this one. All threads call it.
__device__ __forceinline__ void start_next_early(std::uint32_t* done) {
  if (done == nullptr || threadIdx.x != 0) return;  // one thread speaks for its CTA
  if (blockIdx.x == 0 && blockIdx.y == 0) {
    ptx::store_release(done, 0);
    ptx::fence_device();
  }
  ptx::launch_dependents();
}

/// The first kernel, when it has waited.
__device__ __forceinline__ void tell_next(std::uint32_t* done) {
  if (done == nullptr) {
    ptx::launch_dependents();
  } else if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0) {
    ptx::store_release(done, 1);
  }
}

/// The second kernel. All threads of the CTA call it.
__device__ __forceinline__ void wait_for_done(const std::uint32_t* done) {
  if (threadIdx.x == 0) {
    // Not by acquire: each such load empties L1, for the CTAs of earlier calls too.
    while (ptx::load_relaxed(done) == 0) {
    }
    ptx::fence_device();
  }
  __syncthreads();
}

}  // namespace pagedkv::cuda
