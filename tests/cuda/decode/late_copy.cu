#include "cuda/decode/late_copy.h"

#include "cuda/launch.cuh"
#include "cuda/ptx/dependent_launch.cuh"

namespace decode_test {
namespace {

constexpr int kThreads = 32;
constexpr int kLoads = 40;  ///< one after the other, each from L2

__global__ void late_copy_kernel(std::int32_t* to0, const std::int32_t* from0, std::int32_t* to1,
                                 const std::int32_t* from1, int n) {
  pagedkv::cuda::ptx::launch_dependents();
  pagedkv::cuda::ptx::wait_for_predecessor();
  const volatile std::int32_t* chain = from0;
  std::int32_t at = 0;
  for (int i = 0; i < kLoads; ++i) at = (chain[at] & 0xffff) % n;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    to0[(i + at) % n] = from0[(i + at) % n];
    to1[(i + at) % n] = from1[(i + at) % n];
  }
}

}  // namespace

void late_copy(std::int32_t* const (&to)[2], const std::int32_t* const (&from)[2], int n, cudaStream_t stream) {
  pagedkv::cuda::launch("late_copy", &late_copy_kernel, {dim3(1), kThreads, 0, stream, false}, to[0], from[0], to[1],
                        from[1], n);
}

}  // namespace decode_test
