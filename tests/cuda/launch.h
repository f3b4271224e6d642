#pragma once
// Launching a kernel of a test.

#include <cuda_runtime.h>

#include "cuda/device_memory.h"

namespace support {

/// On the default stream.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 ctas, unsigned threads, const Args&... args) {
  cudaLaunchConfig_t config{};
  config.gridDim = ctas;
  config.blockDim = dim3(threads);
  cuda_ok(cudaLaunchKernelEx(&config, kernel, args...));
}

}  // namespace support
