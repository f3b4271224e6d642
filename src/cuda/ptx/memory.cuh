#pragma once
// Global memory access with cache hints, one instruction per function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

// Read-only data that is used once. L1 keeps it as the first to go instead of not at all, because two instructions may
// share a sector.
__device__ __forceinline__ uint4 load_once_16(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::evict_first.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
__device__ __forceinline__ uint2 load_once_8(const void* p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::evict_first.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
__device__ __forceinline__ std::uint32_t load_once_4(const void* p) {
  std::uint32_t v;
  asm volatile("ld.global.nc.L1::evict_first.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}

// Read-only data that many CTAs share.
__device__ __forceinline__ uint4 load_16(const void* p) {
  return __ldg(static_cast<const uint4*>(p));
}
__device__ __forceinline__ std::uint32_t load_4(const void* p) {
  return __ldg(static_cast<const std::uint32_t*>(p));
}

__device__ __forceinline__ void store_16(void* p, uint4 v) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
__device__ __forceinline__ void store_8(void* p, uint2 v) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(p), "r"(v.x), "r"(v.y) : "memory");
}
__device__ __forceinline__ void store_4(void* p, std::uint32_t v) {
  asm volatile("st.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

/// Data that nobody reads soon: the first to leave L2.
__device__ __forceinline__ void store_once_16(void* p, uint4 v) {
  __stcs(static_cast<uint4*>(p), v);
}

/// Brings `bytes` (a multiple of 16) from `p` on, which is a multiple of 16 too, into L2. From sm_90 on.
__device__ __forceinline__ void prefetch_l2(const void* p, std::uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory");
#endif
}

/// Brings the 32 bytes around `p` into L2.
__device__ __forceinline__ void prefetch_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

}  // namespace pagedkv::cuda::ptx
