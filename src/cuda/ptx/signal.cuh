#pragma once
// A word that one kernel sets and another one, running at the same time, polls (relaxed_load.cuh): one instruction per
// function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

/// Stores for whoever loads it and then calls fence_device(): what this thread has seen or written before is seen
/// there.
__device__ __forceinline__ void store_release(std::uint32_t* p, std::uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}

/// What this thread has stored is where every thread of the device finds it, and what it loads from now on is not older
/// than what it has loaded.
__device__ __forceinline__ void fence_device() {
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

}  // namespace pagedkv::cuda::ptx
