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

/// Rows are kept in lane order until they are written: 4 consecutive floats are the channels that one lane has of the
/// row in two 16-channel tiles, lanes in the order of their groups (lane / 4). Vectors of them go to and from shared
/// memory and the workspace.
///
/// Turns four channels of a row from lane order into 4 consecutive ones. `quad` counts them, 8 to a group of 32
/// channels; the 8 lanes of a group of 8 must have the quads of a group and call together.
/// @return the first one's channel
template <KvType V>
__device__ __forceinline__ int to_channel_order(float4& x, int quad) {
  const auto lane = static_cast<int>(threadIdx.x) % 32;
  const unsigned together = 0xffu << (lane & 24);
  const int g = quad % 8;
  const bool odd = g % 2 != 0;
  // Channels that the neighbour (g ^ 1) has in between.
  const float give0 = V == KvType::same ? (odd ? x.x : x.y) : (odd ? x.x : x.z);
  const float give1 = V == KvType::same ? (odd ? x.z : x.w) : (odd ? x.y : x.w);
  const float got0 = __shfl_xor_sync(together, give0, 1);
  const float got1 = __shfl_xor_sync(together, give1, 1);
  if constexpr (V == KvType::int4) {  // 8 (g / 2) + g % 2 + {0, 2, 4, 6}
    x = odd ? float4{got0, x.z, got1, x.w} : float4{x.x, got0, x.y, got1};
    return quad * 4;
  } else if constexpr (V == KvType::int8) {  // 2 g + {0, 1, 16, 17}
    x = odd ? float4{got0, got1, x.z, x.w} : float4{x.x, x.y, got0, got1};
    return quad / 8 * 32 + g % 2 * 16 + g / 2 * 4;
  } else {  // g + {0, 8, 16, 24}: the rest of a transposition of 4 x 4
    x = odd ? float4{got0, x.y, got1, x.w} : float4{x.x, got0, x.z, got1};
    const bool upper = g & 2;
    const float more0 = __shfl_xor_sync(together, upper ? x.x : x.z, 2);
    const float more1 = __shfl_xor_sync(together, upper ? x.y : x.w, 2);
    x = upper ? float4{more0, more1, x.z, x.w} : float4{x.x, x.y, more0, more1};
    return quad / 8 * 32 + g % 4 * 8 + g / 4 * 4;
  }
}

/// Position of a row's four channels in a warp's buffer of [rows][D] float32: quads of four rows that a quarter of a
/// warp writes at a time hit different banks.
template <int D>
__device__ __forceinline__ int buffer_index(int row, int quad) {
  return row * D + (quad ^ (row & 6)) * 4;
}

/// What the warps of a CTA tell each other at the end of an item.
template <int Rows>
struct Exchange {
  float2 ml[Rows][kWarps];  ///< maximum and sum of each row
  int offset[kWarps];       ///< of the warp's buffer in shared memory
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

/// Finishes and writes four channels of a row; as in to_channel_order().
template <class T, KvType V>
__device__ __forceinline__ void write_result(const OutputParams& p, const Cursor& item, const OutputRow& row, int quad,
                                             float4 o, float high, float sum) {
  const float f = finish_row(p, row.head, high, sum);
  const std::int64_t at = p.o_strides.batch * item.b + p.o_strides.start * item.seq.q_begin +
                          p.o_strides.token * row.token + p.o_strides.head * row.head + to_channel_order<V>(o, quad);
  store_row<T>(p, at, {o.x * f, o.y * f, o.z * f, o.w * f});
  if (quad == 0 && p.lse != nullptr) p.lse[row.index] = row_lse(high, sum);
}

/// Puts a warp's results into its buffer, which lies `offset` bytes into shared memory. A warp without a tile has
/// zeros, and so changes nothing.
template <KvType V, int D, int Rows, bool Lifted, int N, int Sums>
__device__ __forceinline__ void publish(const State<N, D, Sums>& st, char* shared, int offset,
                                        Exchange<Rows>& exchange) {
  using C = Convert<V>;
  constexpr bool kPacked = Rows < 8;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int g = lane / 4;
  if (lane == 0) exchange.offset[warp] = offset;
  float* buffer = reinterpret_cast<float*>(shared + offset) + buffer_index<D>(2 * (lane % 4), g);
  const float inverse = V == KvType::same ? 1.0F : power_of_two(254 - exponent_of(st.unit));
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float sum = sum_over_rows<kPacked>(st.sum[n][e]);
      const float zero = V == KvType::same ? 0.0F : sum_over_rows<kPacked>(st.zero[n][e]);
      if (kPacked && lane % 4 >= 2) continue;  // these columns are no rows
#pragma unroll
      for (int c = 0; c < D / 32; ++c) {
        float x[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          x[j] = st.o[2 * c + j / 2][n][j % 2 * 2 + e];
          if constexpr (V != KvType::same) {
            x[j] = fmaf(x[j] * (1.0F / C::step(j % C::kPairs)), inverse, zero);
          }
        }
        *reinterpret_cast<float4*>(buffer + (n * 8 + e) * D + c * 32) = {x[0], x[1], x[2], x[3]};
      }
      if (g == 0) exchange.ml[n * 8 + 2 * (lane % 4) + e][warp] = {st.high[n][e] - (Lifted ? kLift : 0.0F), sum};
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
  float4 o[Rows * D / 4];  ///< in lane order
  float2 ml[2]
           [Rows];  ///< maximum and sum; those of splits with even and odd numbers, so that nobody reads what changes
};

/// Joins what the warps have published, in their order, and writes the item's result; `kept` (may be null): adds it to
/// that of the splits before, and writes it with the last one.
template <class T, KvType V, int D, int Rows>
__device__ __forceinline__ void join_warps(const Params& p, const Cursor& item, const char* shared,
                                           const Exchange<Rows>& exchange, KeptRows<D, Rows>* kept) {
  constexpr int kQuads = D / 4;
  const int row0 = item.row_tile * Rows;
  const int rows_here = min(Rows, item.seq.q_len * p.group - row0);
  for (int x = static_cast<int>(threadIdx.x); x < rows_here * kQuads; x += kWarps * 32) {
    const int row = x / kQuads;
    const int quad = x % kQuads;
    float2 part[kWarps];
    float high = kLow;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      part[w] = exchange.ml[row][w];
      high = fmaxf(high, part[w].x);
    }
    PartialRow result;
    result.high = high;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float f = exp2_approx(part[w].x - high);
      const float4 y = reinterpret_cast<const float4*>(shared + exchange.offset[w])[buffer_index<D>(row, quad) / 4];
      result.sum = fmaf(part[w].y, f, result.sum);
      result.o = {fmaf(y.x, f, result.o.x), fmaf(y.y, f, result.o.y), fmaf(y.z, f, result.o.z),
                  fmaf(y.w, f, result.o.w)};
    }
    const OutputRow to(p, item, row0 + row);
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
        if (quad == 0) kept->ml[item.split % 2][row] = {result.high, result.sum};
      }
    }
    if (finish) {
      write_result<T, V>(p, item, to, quad, result.o, result.high, result.sum);
    } else if (kept == nullptr) {
      reinterpret_cast<float4*>(p.partials.o)[(to.index * p.partials.splits + item.split) * kQuads + quad] = result.o;
      if (quad == 0) {
        p.partials.ml[to.index * (p.partials.splits + p.partials.runs) + item.split] = {result.high, result.sum};
      }
    }
  }
}

}  // namespace pagedkv::cuda::impl::decode
