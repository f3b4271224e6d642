// merge_partials: joins the results of several sets of keys.

#include <cuda_runtime_api.h>

#include <algorithm>

#include "common/args_check.h"
#include "cuda/device.h"
#include "cuda/launch.cuh"
#include "pagedkv/core/half.h"
#include "pagedkv/cuda.h"

namespace pagedkv::cuda {
namespace {

constexpr int kWarps = 4;

/// One warp per row.
template <class T>
__global__ void merge_kernel(const MergePartialsArgs a) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t step = std::int64_t{gridDim.x} * kWarps;
  for (std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; row < a.rows; row += step) {
    float high = -INFINITY;
    for (int p = 0; p < a.parts; ++p) high = fmaxf(high, a.lse_parts[p * a.rows + row]);
    float total = 0.0F;
    if (high > -INFINITY) {
      for (int p = 0; p < a.parts; ++p) total += expf(a.lse_parts[p * a.rows + row] - high);
    }
    for (int d = lane * 4; d < a.dim; d += 128) {
      float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
      for (int p = 0; p < a.parts; ++p) {
        const float lse = a.lse_parts[p * a.rows + row];
        if (lse == -INFINITY) continue;  // a part without keys, whatever its o
        const float f = expf(lse - high) / total;
        const float4 x = *reinterpret_cast<const float4*>(a.o_parts + (p * a.rows + row) * a.dim + d);
        sum = {fmaf(x.x, f, sum.x), fmaf(x.y, f, sum.y), fmaf(x.z, f, sum.z), fmaf(x.w, f, sum.w)};
      }
      T* o = static_cast<T*>(a.o) + row * a.dim + d;
      o[0] = core::from_float<T>(sum.x);
      o[1] = core::from_float<T>(sum.y);
      o[2] = core::from_float<T>(sum.z);
      o[3] = core::from_float<T>(sum.w);
    }
    if (lane == 0 && a.lse != nullptr) a.lse[row] = high > -INFINITY ? high + logf(total) : high;
  }
}

}  // namespace

void merge_partials(const MergePartialsArgs& args, Stream stream) {
  common::check_args(args, common::Backend::cuda);
  if (args.rows == 0) return;
  const std::int64_t most = std::int64_t{current_device().multiprocessors} * 16;
  const auto ctas = static_cast<unsigned>(std::min((args.rows + kWarps - 1) / kWarps, most));
  const LaunchShape shape{dim3(ctas), kWarps * 32, 0, stream};
  if (args.dtype == DType::f16) {
    launch("merge_partials", &merge_kernel<half_t>, shape, args);
  } else if (args.dtype == DType::bf16) {
    launch("merge_partials", &merge_kernel<bfloat16_t>, shape, args);
  } else {
    launch("merge_partials", &merge_kernel<float>, shape, args);
  }
}

}  // namespace pagedkv::cuda
