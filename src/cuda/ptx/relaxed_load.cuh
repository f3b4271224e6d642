#pragma once
// Loads of memory that others may be writing: one instruction per function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

/// What the memory holds now, from L2. L1 does not keep it.
__device__ __forceinline__ std::int32_t load_relaxed(const std::int32_t* p) {
  std::int32_t v;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}

__device__ __forceinline__ std::uint8_t load_relaxed(const std::uint8_t* p) {
  std::uint32_t v;
  asm volatile("ld.relaxed.gpu.global.u8 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return static_cast<std::uint8_t>(v);
}

}  // namespace pagedkv::cuda::ptx
