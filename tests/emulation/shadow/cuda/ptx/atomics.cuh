#pragma once
// Stands in for src/cuda/ptx/atomics.cuh. Threads change between instructions only, so these are atomic as they are.

#include <cstdint>

namespace pagedkv::cuda::ptx {

inline std::uint64_t add_acq_rel(std::uint64_t* p, std::uint64_t value) {
  const std::uint64_t old = *p;
  *p = old + value;
  return old;
}

inline std::uint64_t compare_exchange_acq_rel(std::uint64_t* p, std::uint64_t expected, std::uint64_t value) {
  const std::uint64_t old = *p;
  if (old == expected) *p = value;
  return old;
}

}  // namespace pagedkv::cuda::ptx
