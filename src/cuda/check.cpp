#include "cuda/check.h"

#include <string>

#include "pagedkv/error.h"

namespace pagedkv::cuda {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw Error(ErrorCode::cuda, call, std::string(cudaGetErrorName(status)) + " (" + cudaGetErrorString(status) + ")",
              "");
}

}  // namespace pagedkv::cuda
