#pragma once
// Joins the splits of each row in split order.

#include <cstdint>

#include "cuda/decode/output.cuh"
#include "cuda/decode/params.h"
#include "cuda/decode/schedule.cuh"
#include "cuda/ptx/dependent_launch.cuh"
#include "cuda/ptx/shared_memory.cuh"

namespace pagedkv::cuda::impl::decode {

/// FoldWarps warps share a row: run r of its splits is summed by the row's warp r % FoldWarps. Rows that were not split
/// are finished already. next_early: starts_next_early().
template <class T, int D, int FoldWarps>
__global__ __launch_bounds__(kFoldThreads, kFoldCtasPerSm) void fold_kernel(const __grid_constant__ Params p,
                                                                            int rows_per_tile, bool next_early) {
  static_assert(FoldWarps == 1 || FoldWarps * 32 == kFoldThreads, "barriers are the CTA's");
  constexpr int kVectors = (D / 4 + 31) / 32;
  [[maybe_unused]] __shared__ float4 sums[FoldWarps][kVectors][32];
  [[maybe_unused]] __shared__ float parts[FoldWarps];
  ptx::in_shared(sums, parts);
  const int warp = static_cast<int>(threadIdx.x) / 32 % FoldWarps;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int q_heads = p.group * p.kv_heads;
  const int row = static_cast<int>(blockIdx.x) * (kFoldThreads / (32 * FoldWarps)) +
                  static_cast<int>(threadIdx.x) / (32 * FoldWarps);
  const int head = row % q_heads;
  const int q_index = row / q_heads;

  // Lengths were complete before the decode kernel let this one start. Rows are waited for below, and by one CTA in any
  // case: then the end of this kernel is the end of those before it.
  if (next_early) ptx::launch_dependents();
  if (blockIdx.x == 0) ptx::wait_for_predecessor();
  // The sequence that holds this query.
  if (q_index < p.cu_q[0] || q_index >= p.cu_q[p.batch]) return;
  int low = 0;
  int high_b = p.batch;
  while (high_b - low > 1) {
    const int mid = (low + high_b) / 2;
    if (p.cu_q[mid] <= q_index) {
      low = mid;
    } else {
      high_b = mid;
    }
  }
  const Sequence seq = load_sequence(p, low, rows_per_tile);
  if (seq.splits == 1) return;
  ptx::wait_for_predecessor();

  const std::int64_t q_row = std::int64_t{q_index} * q_heads + head;
  const float2* ml = p.partial_ml + q_row * p.max_splits;
  const float* part = p.partial_o + q_row * p.max_splits * D + lane * 4;
  constexpr int kAhead = (FoldWarps == 1 ? 8 : 4) / kVectors;  // parts of a run that are loaded together
  float4 y[kAhead][kVectors];
  const auto load_parts = [&](int first, int end) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        y[j][v] = {};
        if (first + j >= end || (D % 128 != 0 && (v * 32 + lane) * 4 >= D)) continue;
        y[j][v] = *reinterpret_cast<const float4*>(part + std::int64_t{first + j} * D + v * 128);
      }
    }
  };
  // The first parts do not wait for the maximum.
  load_parts(warp * kFoldRun, min((warp + 1) * kFoldRun, seq.splits));
  float high = kLow;
  for (int i = lane; i < seq.splits; i += 32) high = fmaxf(high, ml[i].x);
#pragma unroll
  for (int d = 16; d > 0; d /= 2) high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, d));

  float4 total[kVectors] = {};
  float total_sum = 0.0F;
  for (int run0 = 0; run0 < seq.splits; run0 += kFoldRun * FoldWarps) {
    float4 o[kVectors] = {};
    float sum = 0.0F;
    const int begin = run0 + warp * kFoldRun;
    const int end = min(begin + kFoldRun, seq.splits);
    // Lane i has the weight and the sum of split begin + i.
    const bool mine = lane < kFoldRun && begin + lane < end;
    const float2 own_ml = mine ? ml[begin + lane] : float2{kLow, 0.0F};
    const float weight = mine ? exp2_approx(own_ml.x - high) : 0.0F;
    for (int i0 = begin; i0 < end; i0 += kAhead) {
      if (run0 > 0 || i0 > begin) load_parts(i0, end);
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (i0 + j >= end) break;
        const float f = __shfl_sync(0xffffffffu, weight, i0 + j - begin);
        sum = fmaf(__shfl_sync(0xffffffffu, own_ml.y, i0 + j - begin), f, sum);
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          o[v].x = fmaf(y[j][v].x, f, o[v].x);
          o[v].y = fmaf(y[j][v].y, f, o[v].y);
          o[v].z = fmaf(y[j][v].z, f, o[v].z);
          o[v].w = fmaf(y[j][v].w, f, o[v].w);
        }
      }
    }
    if constexpr (FoldWarps == 1) {
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        total[v] = {total[v].x + o[v].x, total[v].y + o[v].y, total[v].z + o[v].z, total[v].w + o[v].w};
      }
      total_sum += sum;
    } else {
      __syncthreads();
#pragma unroll
      for (int v = 0; v < kVectors; ++v) sums[warp][v][lane] = o[v];
      if (lane == 0) parts[warp] = sum;
      __syncthreads();
      if (warp == 0) {
        for (int w = 0; w < FoldWarps && run0 + w * kFoldRun < seq.splits; ++w) {
#pragma unroll
          for (int v = 0; v < kVectors; ++v) {
            const float4 y = sums[w][v][lane];
            total[v] = {total[v].x + y.x, total[v].y + y.y, total[v].z + y.z, total[v].w + y.w};
          }
          total_sum += parts[w];
        }
      }
    }
  }
  if (warp != 0) return;
  const float f = finish_row(p, head, high, total_sum);
  const std::int64_t row_at = p.o_strides.batch * low + p.o_strides.start * seq.q_begin +
                              p.o_strides.token * (q_index - seq.q_begin) + p.o_strides.head * head;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int dim = (v * 32 + lane) * 4;
    if (D % 128 != 0 && dim >= D) continue;
    store_row<T>(p, row_at + dim, {total[v].x * f, total[v].y * f, total[v].z * f, total[v].w * f});
  }
  if (lane == 0 && p.lse != nullptr) p.lse[q_row] = row_lse(high, total_sum);
}

}  // namespace pagedkv::cuda::impl::decode
