#pragma once
// From the warps' states to the output: the four warps of a CTA join theirs in a fixed order, and what a split gives is
// written, or, for a sequence with one split, the final result.

#include <cstdint>

#include "cuda/decode/convert.cuh"
#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/schedule.cuh"
#include "cuda/decode/softmax.cuh"

namespace pagedkv::cuda::impl::decode {

inline constexpr float kLn2 = 0.69314718055994531F;
inline constexpr float kLog2E = 1.4426950408889634F;

/// Four consecutive channels of a result row.
template <class T>
__device__ __forceinline__ void store_row(const OutputParams& p, std::int64_t at, float4 x) {
  if (p.o_is_f32) {
    *reinterpret_cast<float4*>(static_cast<float*>(p.o) + at) = x;
  } else {
    constexpr bool kBf16 = dtype_of<T> == DType::bf16;
    *reinterpret_cast<uint2*>(static_cast<T*>(p.o) + at) = {pack<kBf16>(x.x, x.y), pack<kBf16>(x.z, x.w)};
  }
}

/// Joins the sink of a head to a row's maximum and sum; returns what the row's o is to be multiplied by to finish it.
__device__ __forceinline__ float finish_row(const OutputParams& p, int head, float& high, float& sum) {
  float factor = 1.0F;
  if (p.sinks != nullptr) {
    const float sink = p.sinks[head] * kLog2E;
    const float top = fmaxf(high, sink);
    factor = exp2_approx(high - top);
    sum = sum * factor + exp2_approx(sink - top);
    high = top;
  }
  return sum == 0.0F ? 0.0F : factor / sum;
}

__device__ __forceinline__ float row_lse(float high, float sum) {
  return sum == 0.0F ? -INFINITY : (high + log2f(sum)) * kLn2;
}

/// Position of (row, channel) in a warp's buffer of [rows][D] float32, arranged so that a fragment's lanes hit
/// different banks. Pairs of channels stay together.
template <KvType V, int D>
__device__ __forceinline__ int buffer_index(int row, int dim) {
  return row * D + (dim ^ (((row >> 1) & 3) << (V == KvType::int4 ? 1 : 3)));
}

/// What the warps of a CTA tell each other at the end of an item.
template <int Rows>
struct Exchange {
  int offset[kWarps];       ///< of the warp's buffer in shared memory, or -1 if it had no tile
  float2 ml[kWarps][Rows];  ///< maximum and sum of each row
};

/// A row of a tile of rows, and its item's sequence.
struct OutputRow {
  int token;
  int head;
  std::int64_t index;  ///< as in Partials

  __device__ OutputRow(const OutputParams& p, const Cursor& item, int row_in_sequence) {
    int in_group = 0;
    p.group_div(token, in_group, row_in_sequence);
    head = item.head * p.group_div.divisor + in_group;
    index = std::int64_t{item.seq.q_begin + token} * p.q_heads + head;
  }
};

/// Finishes and writes four channels of a row, from `dim` on.
template <class T>
__device__ __forceinline__ void write_result(const OutputParams& p, const Cursor& item, const OutputRow& row, int dim,
                                             float4 o, float high, float sum) {
  const float f = finish_row(p, row.head, high, sum);
  const std::int64_t at = p.o_strides.batch * item.b + p.o_strides.start * item.seq.q_begin +
                          p.o_strides.token * row.token + p.o_strides.head * row.head + dim;
  store_row<T>(p, at, {o.x * f, o.y * f, o.z * f, o.w * f});
  if (dim == 0 && p.lse != nullptr) p.lse[row.index] = row_lse(high, sum);
}

/// Puts a warp's results into its buffer, which lies `offset` bytes into shared memory.
template <KvType V, int D, int N, bool Lifted>
__device__ __forceinline__ void publish(const State<N, D>& st, bool worked, char* shared, int offset,
                                        Exchange<8 * N>& exchange) {
  using C = Convert<V>;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  if (lane == 0) exchange.offset[warp] = worked ? offset : -1;
  if (!worked) return;
  float* buffer = reinterpret_cast<float*>(shared + offset);
#pragma unroll
  for (int n = 0; n < N; ++n) {
    float zero[2] = {0.0F, 0.0F};
    float sum[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      sum[e] = sum_over_rows(st.sum[n][e]);
      if constexpr (V != KvType::same) zero[e] = sum_over_rows(st.zero[n][e]);
    }
    const float inverse = V == KvType::same ? 1.0F : power_of_two(254 - exponent_of(st.unit));
#pragma unroll
    for (int m = 0; m < D / 16; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int pair = 2 * m + i / 2;  // the fragment's rows are pair `pair % kPairs` of its chunk
        const int dim = pair / C::kPairs * (128 / data_bits(V)) + C::value_dim(pair % C::kPairs, g);
        const int row = n * 8 + 2 * (lane % 4) + i % 2;
        float x = st.o[m][n][i];
        if constexpr (V != KvType::same) {
          x = fmaf(fmaf(-C::offset(pair % C::kPairs), st.ones[n][i % 2], x), inverse, zero[i % 2]);
        }
        buffer[buffer_index<V, D>(row, dim)] = x;
      }
    }
    if (g == 0) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        exchange.ml[warp][n * 8 + 2 * (lane % 4) + e] = {st.high[n][e] - (Lifted ? kLift : 0.0F), sum[e]};
      }
    }
  }
}

/// Four channels of a row over some of its keys: the sum of values times 2^(s - high), and the sum of these powers.
struct PartialRow {
  float4 o = {0.0F, 0.0F, 0.0F, 0.0F};
  float high = kLow;
  float sum = 0.0F;

  /// Adds what further keys gave. The order of these decides about the bits.
  __device__ void add(const PartialRow& x) {
    const float top = fmaxf(high, x.high);
    const float mine = exp2_approx(high - top);
    const float theirs = exp2_approx(x.high - top);
    sum = fmaf(x.sum, theirs, sum * mine);
    o = {fmaf(x.o.x, theirs, o.x * mine), fmaf(x.o.y, theirs, o.y * mine), fmaf(x.o.z, theirs, o.z * mine),
         fmaf(x.o.w, theirs, o.w * mine)};
    high = top;
  }
};

/// Results of the splits of a tile of rows so far, in shared memory.
template <int D, int Rows>
struct KeptRows {
  float4 o[Rows * D / 4];
  float2 ml[2]
           [Rows];  ///< maximum and sum; those of splits with even and odd numbers, so that nobody reads what changes
};

/// Joins what the warps have published, in their order, and writes the item's result; `kept` (may be null): adds it to
/// that of the splits before, and writes it with the last one.
template <class T, KvType V, int D, int N>
__device__ __forceinline__ void join_warps(const Params& p, const Cursor& item, const char* shared,
                                           const Exchange<8 * N>& exchange, KeptRows<D, 8 * N>* kept) {
  constexpr int kRows = 8 * N;
  const int row0 = item.row_tile * kRows;
  const int rows_here = min(kRows, item.seq.q_len * p.group - row0);
  for (int x = static_cast<int>(threadIdx.x); x < rows_here * (D / 4); x += kWarps * 32) {
    const int row = x / (D / 4);
    const int dim = x % (D / 4) * 4;
    int offset[kWarps];
    float2 part[kWarps];
    float high = kLow;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      offset[w] = exchange.offset[w];
      part[w] = exchange.ml[w][row];
      if (offset[w] >= 0) high = fmaxf(high, part[w].x);
    }
    float o[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (offset[w] < 0) continue;
      const float f = exp2_approx(part[w].x - high);
      const float* y = reinterpret_cast<const float*>(shared + offset[w]);
      const float2 y0 = *reinterpret_cast<const float2*>(y + buffer_index<V, D>(row, dim));
      const float2 y1 = *reinterpret_cast<const float2*>(y + buffer_index<V, D>(row, dim + 2));
      sum = fmaf(part[w].y, f, sum);
      o[0] = fmaf(y0.x, f, o[0]);
      o[1] = fmaf(y0.y, f, o[1]);
      o[2] = fmaf(y1.x, f, o[2]);
      o[3] = fmaf(y1.y, f, o[3]);
    }
    const OutputRow to(p, item, row0 + row);
    PartialRow result{{o[0], o[1], o[2], o[3]}, high, sum};
    bool finish = item.seq.splits == 1;
    if (kept != nullptr) {
      PartialRow all;
      if (item.split > 0) {
        const float2 ml = kept->ml[(item.split + 1) % 2][row];
        all = {kept->o[x], ml.x, ml.y};
      }
      all.add(result);
      result = all;
      finish = item.split + 1 == item.seq.splits;
      if (!finish) {
        kept->o[x] = result.o;
        if (dim == 0) kept->ml[item.split % 2][row] = {result.high, result.sum};
      }
    }
    if (finish) {
      write_result<T>(p, item, to, dim, result.o, result.high, result.sum);
    } else if (kept == nullptr) {
      *reinterpret_cast<float4*>(p.partials.o + (to.index * p.partials.splits + item.split) * D + dim) = result.o;
      if (dim == 0) {
        p.partials.ml[to.index * (p.partials.splits + p.partials.runs) + item.split] = {result.high, result.sum};
      }
    }
  }
}

}  // namespace pagedkv::cuda::impl::decode
