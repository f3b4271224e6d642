#pragma once
// Stands in for src/cuda/ptx/relaxed_load.cuh.

#include <cstdint>

namespace pagedkv::cuda::ptx {

inline std::int32_t load_relaxed(const std::int32_t* p) {
  return *p;
}

inline std::uint8_t load_relaxed(const std::uint8_t* p) {
  return *p;
}

}  // namespace pagedkv::cuda::ptx
