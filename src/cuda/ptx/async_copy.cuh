#pragma once
// Asynchronous copies from global to shared memory (sm_80): one instruction per function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

/// An L2 policy for data that is read once, as the instruction for it gives it.
__device__ __forceinline__ std::uint64_t create_evict_first_policy() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// The same. A constant needs no register, and no instructions in front of each copy that move it to a uniform one; a
/// test compares it with what the device gives.
__device__ __forceinline__ std::uint64_t evict_first_policy() {
#if __CUDA_ARCH__ >= 900
  return 0x12f0000000000000ull;
#else
  return create_evict_first_policy();
#endif
}

// `to` is a shared_address().

/// 16 bytes, past L1.
__device__ __forceinline__ void copy_async_16(std::uint32_t to, const void* from, std::uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "l"(policy)
               : "memory");
}

/// 16 bytes of which the first `bytes`, a multiple of 4, are copied and the others set to zero.
__device__ __forceinline__ void copy_async_16(std::uint32_t to, const void* from, std::uint32_t bytes,
                                              std::uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to), "l"(from), "r"(bytes),
               "l"(policy)
               : "memory");
}

/// 16 bytes without a policy.
__device__ __forceinline__ void copy_async_16(std::uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

/// Bytes (4 or 8) bytes.
template <int Bytes>
__device__ __forceinline__ void copy_async_small(std::uint32_t to, const void* from) {
  static_assert(Bytes == 4 || Bytes == 8);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(Bytes) : "memory");
}

/// Closes the group of the copies that this thread has issued since the last call.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most `Left` of this thread's groups are unfinished.
template <int Left>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}

}  // namespace pagedkv::cuda::ptx
