#pragma once
// CUDA runtime failures as Error.

#include <cuda_runtime_api.h>

namespace pagedkv::cuda {

/// Throws Error (cuda) unless `status` is success. `call` names what failed.
void check(cudaError_t status, const char* call);

}  // namespace pagedkv::cuda
