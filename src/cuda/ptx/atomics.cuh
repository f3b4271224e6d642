#pragma once
// Atomic operations on global memory that order what is around them for the whole device: one instruction per function.

#include <cstdint>

namespace pagedkv::cuda::ptx {

/// Adds to a word and returns what it held. What the CTA wrote before the barrier in front of this is visible to
/// whoever sees the sum, and the other way round.
__device__ __forceinline__ std::uint64_t add_acq_rel(std::uint64_t* p, std::uint64_t value) {
  std::uint64_t old;
  asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], %2;" : "=l"(old) : "l"(p), "l"(value) : "memory");
  return old;
}

/// Writes `value` if the word is `expected`; returns what it held.
__device__ __forceinline__ std::uint64_t compare_exchange_acq_rel(std::uint64_t* p, std::uint64_t expected,
                                                                  std::uint64_t value) {
  std::uint64_t old;
  asm volatile("atom.acq_rel.gpu.global.cas.b64 %0, [%1], %2, %3;"
               : "=l"(old)
               : "l"(p), "l"(expected), "l"(value)
               : "memory");
  return old;
}

}  // namespace pagedkv::cuda::ptx
