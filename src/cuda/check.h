#pragma once
// CUDA runtime failures as Error.

#include <cuda_runtime_api.h>

namespace pagedkv::cuda {

/// Throws Error (cuda) unless `status` is success. `call` names what failed.
void check(cudaError_t status, const char* call);

/// Throws Error (cuda) if the launch just made was refused. `kernel` names it.
void check_launch(const char* kernel);

}  // namespace pagedkv::cuda
