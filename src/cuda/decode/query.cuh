#pragma once
// Queries as matrix fragments.

#include <cstdint>
#include <type_traits>

#include "cuda/decode/convert.cuh"
#include "cuda/decode/params.h"
#include "cuda/decode/schedule.cuh"
#include "cuda/ptx/convert.cuh"
#include "pagedkv/core/half.h"

namespace pagedkv::cuda::impl::decode {

/// 2^(exponent - 127) for exponents of normal numbers, 0 for smaller ones.
__device__ __forceinline__ float power_of_two(int exponent) {
  return __uint_as_float(static_cast<std::uint32_t>(max(exponent, 0)) << 23);
}
__device__ __forceinline__ int exponent_of(float x) {
  return static_cast<int>(__float_as_uint(x) >> 23);
}

/// What a lane holds of the queries of a tile of rows: row lane / 4 of each of N columns of 8. Row r of the tile is
/// query (row0 + r) / group of head (row0 + r) % group. A tile of 4 rows is there twice.
template <int N, int D>
struct Queries {
  std::uint32_t fragment[N][D / 16][2];
};

/// What it needs besides, of rows 2 (lane % 4) + {0, 1}.
template <int N>
struct RowFactors {
  float2 sum[N];    ///< sum of q, in units of products
  float2 scale[N];  ///< from these to log2 units
};

/// Two floats as the operand type of a product.
template <bool Bf16>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  return ptx::pack<std::conditional_t<Bf16, bfloat16_t, half_t>>(low, high);
}

using ptx::unpack;

/// The words of a lane's row as they lie in memory, on their way.
template <int N, int D>
struct RawQueries {
  std::uint32_t word[N][D / 8];
};

/// The lane's words of column tile n from its row, `from` being the row's start; zero if not `valid`.
template <class T, KvType K, int N, int D>
__device__ __forceinline__ void fetch_row(RawQueries<N, D>& raw, int n, const T* from, bool valid) {
  constexpr int kElements = Convert<K>::kWordElements;  // of a lane's piece of a chunk
  constexpr int kWords = kElements / 2;
  from += static_cast<int>(threadIdx.x) % 4 * kElements;
#pragma unroll
  for (int c = 0; c < D / (4 * kElements); ++c) {
    std::uint32_t* w = raw.word[n] + c * kWords;
    if constexpr (kWords == 4) {
      const uint4 u = valid ? *reinterpret_cast<const uint4*>(from + c * 4 * kElements) : uint4{0, 0, 0, 0};
      w[0] = u.x, w[1] = u.y, w[2] = u.z, w[3] = u.w;
    } else if constexpr (kWords == 2) {
      const uint2 u = valid ? *reinterpret_cast<const uint2*>(from + c * 4 * kElements) : uint2{0, 0};
      w[0] = u.x, w[1] = u.y;
    } else {
      w[0] = valid ? *reinterpret_cast<const std::uint32_t*>(from + c * 4 * kElements) : 0u;
    }
  }
}

/// The lane's row of the first 8 of a tile of rows.
template <int Rows>
__device__ __forceinline__ int lane_row() {
  return static_cast<int>(threadIdx.x) % 32 / 4 % Rows;
}

/// Where the lane's rows among [row0, row0 + Rows) of a kv head's queries are; null for rows from the last one on.
template <class T, int Rows>
struct QueryRows {
  static constexpr int N = row_tiles(Rows);
  const T* row[N];

  QueryRows() = default;
  __device__ QueryRows(const Params& p, const Cursor& item) {
    const int row0 = item.row_tile * Rows;
    const int rows = item.seq.q_len * p.group;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int r = row0 + n * 8 + lane_row<Rows>();
      const bool valid = r < rows;
      int token = 0;
      int in_group = 0;
      p.group_div(token, in_group, valid ? r : 0);
      const T* from = static_cast<const T*>(p.q) + p.q_strides.batch * item.b + p.q_strides.start * item.seq.q_begin +
                      p.q_strides.token * token + p.q_strides.head * (item.head * p.group + in_group);
      row[n] = valid ? from : nullptr;
    }
  }
};

/// Starts loading them; rows that there are not become zero.
template <class T, KvType K, int Rows, int N, int D>
__device__ __forceinline__ void fetch_queries(RawQueries<N, D>& raw, const QueryRows<T, Rows>& from) {
#pragma unroll
  for (int n = 0; n < N; ++n) fetch_row<T, K>(raw, n, from.row[n], from.row[n] != nullptr);
}

/// The same from rows [Rows][D] in shared memory, of which there are `rows`.
template <class T, KvType K, int Rows, int N, int D>
__device__ __forceinline__ void fetch_prepared(RawQueries<N, D>& raw, const char* from, int rows) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const int row = n * 8 + lane_row<Rows>();
    fetch_row<T, K>(raw, n, reinterpret_cast<const T*>(from) + row * D, row < rows);
  }
}

template <class T, KvType K, int N, int D>
__device__ __forceinline__ void prepare_queries(Queries<N, D>& q, RowFactors<N>& factors, const Params& p,
                                                const RawQueries<N, D>& raw) {
  using C = Convert<K>;
  constexpr bool kBf16 = dtype_of<T> == DType::bf16 && K == KvType::same;
  constexpr int kPieces = D / (4 * C::kWordElements);
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    float x[kPieces][C::kWordElements];
#pragma unroll
    for (int c = 0; c < kPieces; ++c) {
#pragma unroll
      for (int i = 0; i < C::kWordElements / 2; ++i) {
        const float2 f = unpack<T>(raw.word[n][c * (C::kWordElements / 2) + i]);
        x[c][2 * i] = f.x;
        x[c][2 * i + 1] = f.y;
      }
    }
    // Queries against codes get a power of two: of bf16 because the products run in f16, of f16 because a pair of codes
    // may be 16 times another, and what its q gives way by must not make that subnormal too.
    constexpr bool kScales = K == KvType::int4 || (dtype_of<T> == DType::bf16 && K == KvType::int8);
    float unit = 1.0F;
    if constexpr (kScales) {
      constexpr int kLargest = K == KvType::int4 ? 10 : 0;  // log2 of what the row's largest becomes
      float largest = 0.0F;
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
#pragma unroll
        for (int i = 0; i < C::kWordElements; ++i) largest = fmaxf(largest, fabsf(x[c][i]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const int exponent = max(exponent_of(largest), 1 + kLargest);
      unit = power_of_two(exponent - kLargest);
      const float inverse = power_of_two(min(max(254 - exponent + kLargest, 1), 254));
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
#pragma unroll
        for (int i = 0; i < C::kWordElements; ++i) x[c][i] *= inverse;
      }
    }
    float sum = 0.0F;
#pragma unroll
    for (int c = 0; c < kPieces; ++c) {
#pragma unroll
      for (int i = 0; i < C::kPairs; ++i) {
        const float2 f = {x[c][C::key_first(i)], x[c][C::key_first(i) + C::kKeyStep]};
        constexpr float kStep = C::kStep;
        const float factor = kStep / C::step(i);
        const int pair = c * C::kPairs + i;
        q.fragment[n][pair / 2][pair % 2] = pack<kBf16>(f.x * factor, f.y * factor);
        sum += f.x + f.y;
      }
    }
    if constexpr (K != KvType::same) {
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    }
    const int source = 8 * (lane % 4);  // of the first row; the second one's is 4 further
    const auto of_rows = [&](float x) {
      return float2{__shfl_sync(0xffffffffu, x, source), __shfl_sync(0xffffffffu, x, source + 4)};
    };
    factors.scale[n] = of_rows(unit * (p.scale_log2 / C::kStep));
    factors.sum[n] = of_rows(sum * C::kStep);
  }
}

}  // namespace pagedkv::cuda::impl::decode
