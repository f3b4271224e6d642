#pragma once
// Stands in for src/cuda/ptx/signal.cuh. Kernels run one after the other here.

#include <cstdint>

namespace pagedkv::cuda::ptx {

inline void store_release(std::uint32_t* p, std::uint32_t value) {
  *p = value;
}

inline void fence_device() {}

}  // namespace pagedkv::cuda::ptx
