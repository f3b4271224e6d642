#pragma once
// The one way in which kernels are launched.

#include <cuda_runtime.h>

#include <cstddef>

#include "cuda/check.h"
#include "pagedkv/cuda.h"

namespace pagedkv::cuda {

struct LaunchShape {
  dim3 ctas;
  unsigned threads = 0;    ///< of a CTA
  std::size_t shared = 0;  ///< bytes of dynamic shared memory
  Stream stream = nullptr;
  /// The kernel may start while the one before it ends and waits itself (ptx/dependent_launch.cuh). Needs sm_90.
  bool overlap = false;
  /// The SMs keep all the shared memory that they can have: for a kernel whose successor needs it and shall not have to
  /// wait until an SM is empty and can be set up anew.
  bool keep_shared = false;
};

/// @throws Error (cuda) naming `name` if the launch is refused
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), const LaunchShape& shape, const Args&... args) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (shape.overlap) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.keep_shared) {
    attributes[count].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attributes[count++].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = shape.ctas;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared;
  config.stream = shape.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, args...);
  if (status != cudaSuccess) cudaGetLastError();  // reported here, so no later call shall find it
  check(status, name);
}

}  // namespace pagedkv::cuda
