#pragma once
// Programmatic dependent launch (sm_90): one instruction per function; nothing on devices without it, where launches
// follow each other in full.

namespace pagedkv::cuda::ptx {

/// The kernel launched after this one may start.
__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits until the kernels before this one have finished and their writes are visible.
__device__ __forceinline__ void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

}  // namespace pagedkv::cuda::ptx
