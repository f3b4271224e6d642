#pragma once
// Barriers in shared memory that a thread can look at without waiting (sm_80): one instruction per function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

// `barrier` is the shared_address() of 8 bytes.

/// Each phase ends when `count` arrivals have come. The first one has parity 0.
__device__ __forceinline__ void init_barrier(std::uint32_t barrier, std::uint32_t count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

__device__ __forceinline__ void arrive_at(std::uint32_t barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(barrier) : "memory");
}

/// Arrives when the copies (async_copy.cuh) that this thread has issued so far have landed.
__device__ __forceinline__ void arrive_after_copies(std::uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(barrier) : "memory");
}

/// Whether the current phase has the other parity, so that the last one with this parity has ended.
__device__ __forceinline__ bool phase_has_ended(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t ended;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(ended)
               : "r"(barrier), "r"(parity)
               : "memory");
  return ended != 0;
}

}  // namespace pagedkv::cuda::ptx
