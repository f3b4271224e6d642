#include <cuda_runtime.h>

#include "cuda/check.h"
#include "cuda/device.h"

namespace pagedkv::cuda {
namespace {

__global__ void empty_kernel() {}

}  // namespace

int compiled_arch() {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&empty_kernel)), "cudaFuncGetAttributes");
  return attributes.ptxVersion;
}

}  // namespace pagedkv::cuda
