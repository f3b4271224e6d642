#pragma once
// Stands in for src/cuda/ptx/dependent_launch.cuh: kernels follow each other in full.

namespace pagedkv::cuda::ptx {

inline void launch_dependents() {}
inline void wait_for_predecessor() {}

}  // namespace pagedkv::cuda::ptx
