#pragma once
// Launching a kernel of a test.

#include <cuda_runtime.h>

#include <cstddef>

#include "cuda/device_memory.h"

namespace support {

struct LaunchShape {
  dim3 ctas;
  unsigned threads = 0;    ///< of a CTA
  std::size_t shared = 0;  ///< bytes of dynamic shared memory
};

/// On the default stream.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), const LaunchShape& shape, const Args&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = shape.ctas;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared;
  cuda_ok(cudaLaunchKernelEx(&config, kernel, args...));
}

}  // namespace support
