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
};

/// @throws Error (cuda) naming `name` if the launch is refused
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), const LaunchShape& shape, const Args&... args) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.ctas;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared;
  config.stream = shape.stream;
  config.attrs = &overlap;
  config.numAttrs = shape.overlap ? 1 : 0;
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, args...);
  if (status != cudaSuccess) cudaGetLastError();  // reported here, so no later call shall find it
  check(status, name);
}

}  // namespace pagedkv::cuda
