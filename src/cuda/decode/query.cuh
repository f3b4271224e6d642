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

/// What a lane holds of the queries of a tile of rows: row lane / 4 of each of N columns of 8. Row r of the tile is
/// query (row0 + r) / group of head (row0 + r) % group. A tile of 4 rows is there twice.
template <int N, int D>
struct Queries {
  std::uint32_t fragment[N][D / 16][2];
};

/// What it needs besides, of rows 2 (lane % 4) + {0, 1}.
template <int N>
struct RowFactors {
  float2 init[N];   ///< minus the conversion offsets' share of a product
  float2 sum[N];    ///< sum of q
  float2 scale[N];  ///< from products to log2 units
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
    // bf16 queries against codes: the products run in f16, so a power of two brings the row into its range.
    float unit = 1.0F;
    if constexpr (dtype_of<T> == DType::bf16 && K != KvType::same) {
      float largest = 0.0F;
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
#pragma unroll
        for (int i = 0; i < C::kWordElements; ++i) largest = fmaxf(largest, fabsf(x[c][i]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const int exponent = max(static_cast<int>(__float_as_uint(largest) >> 23), 1);
      unit = __uint_as_float(static_cast<std::uint32_t>(exponent) << 23);  // 2^floor(log2 largest)
      const float inverse = __uint_as_float(static_cast<std::uint32_t>(max(254 - exponent, 1)) << 23);
#pragma unroll
      for (int c = 0; c < kPieces; ++c) {
#pragma unroll
        for (int i = 0; i < C::kWordElements; ++i) x[c][i] *= inverse;
      }
    }
    float sum = 0.0F;
    float offsets = 0.0F;
#pragma unroll
    for (int c = 0; c < kPieces; ++c) {
#pragma unroll
      for (int i = 0; i < C::kPairs; ++i) {
        const int first = C::key_first(i);
        const std::uint32_t w = pack<kBf16>(x[c][first], x[c][first + C::kKeyStep]);
        const int pair = c * C::kPairs + i;
        q.fragment[n][pair / 2][pair % 2] = w;
        if constexpr (K != KvType::same) {
          const float2 f = unpack<half_t>(w);
          sum += f.x + f.y;
          offsets += C::offset(i) * (f.x + f.y);
        }
      }
    }
    if constexpr (K != KvType::same) {
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      offsets += __shfl_xor_sync(0xffffffffu, offsets, 1);
      offsets += __shfl_xor_sync(0xffffffffu, offsets, 2);
    }
    const int source = 8 * (lane % 4);  // of the first row; the second one's is 4 further
    const auto of_rows = [&](float x) {
      return float2{__shfl_sync(0xffffffffu, x, source), __shfl_sync(0xffffffffu, x, source + 4)};
    };
    factors.scale[n] = of_rows(unit * p.scale_log2);
    factors.sum[n] = of_rows(sum);
    factors.init[n] = of_rows(-offsets);
  }
}

}  // namespace pagedkv::cuda::impl::decode
