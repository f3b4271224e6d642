#pragma once
// The two matrix products of a tile: scores = K q (tokens on M, queries on N) and O += V^T p (channels on M, tokens on
// K, queries on N). Neither order of channels nor rows of M have to be the natural one, so every fragment is a word of
// a stored row as it lies (convert.cuh).

#include <cstdint>

#include "cuda/decode/convert.cuh"
#include "cuda/decode/policy.h"
#include "cuda/ptx/mma.cuh"

namespace pagedkv::cuda::impl::decode {

template <bool Bf16>
__device__ __forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                    const float (&c)[4]) {
  if constexpr (Bf16) {
    ptx::mma_bf16(d, a, b, c);
  } else {
    ptx::mma_f16(d, a, b, c);
  }
}

/// Shared memory addresses that this lane gives ldmatrix for a tile of Tokens rows of Row bytes. One load covers 32
/// rows of one chunk, or 16 rows of two chunks.
template <int Row, int Tokens>
class StoredRows {
  static constexpr int kMask = (1 << swizzle_bits(Row)) - 1;

 public:
  static constexpr int kChunks = Row / 16;
  static constexpr int kRowsPerLoad = Tokens >= 32 ? 32 : 16;
  static constexpr int kChunksPerLoad = 32 / kRowsPerLoad;
  static_assert(kChunks % kChunksPerLoad == 0);

  __device__ StoredRows() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = lane % kRowsPerLoad;
#pragma unroll
    for (int c = 0; c <= kMask; c += kChunksPerLoad) {
      offset_[c / kChunksPerLoad] =
          static_cast<std::uint32_t>(row * Row + (((c + lane / kRowsPerLoad) ^ swizzle(Row, row)) * 16));
    }
  }

  /// Of rows [row, row + kRowsPerLoad), chunks [chunk, chunk + kChunksPerLoad).
  __device__ std::uint32_t address(std::uint32_t tile, int row, int chunk) const {
    return tile + offset_[(chunk & kMask) / kChunksPerLoad] +
           static_cast<std::uint32_t>(row * Row + (chunk & ~kMask) * 16);
  }

 private:
  std::uint32_t offset_[(kMask + kChunksPerLoad) / kChunksPerLoad];
};

/// s[m][n] = K tile m (16 tokens) times queries of column tile n.
template <KvType F, int D, int Tokens, int N, bool Bf16>
__device__ __forceinline__ void key_products(float (&s)[Tokens / 16][N][4],
                                             const StoredRows<row_bytes(F, D), Tokens>& rows, std::uint32_t tile,
                                             const std::uint32_t (&q)[N][D / 16][2]) {
  using C = Convert<F>;
  using R = StoredRows<row_bytes(F, D), Tokens>;
  constexpr int kUnit = C::kPairs == 1 ? 2 : 1;  // chunks that make whole steps of 16 channels
  constexpr int kSteps = kUnit * C::kPairs / 2;
#pragma unroll
  for (int u = 0; u < R::kChunks; u += (kUnit > R::kChunksPerLoad ? kUnit : R::kChunksPerLoad)) {
#pragma unroll
    for (int row = 0; row < Tokens; row += R::kRowsPerLoad) {
      constexpr int kSpan = kUnit > R::kChunksPerLoad ? kUnit : R::kChunksPerLoad;
      constexpr int kTiles = R::kRowsPerLoad / 16;
      std::uint32_t w[kTiles][kSpan][2];  // [tile of 16 tokens][chunk][rows 0-7, 8-15]
#pragma unroll
      for (int c = 0; c < kSpan; c += R::kChunksPerLoad) {
        std::uint32_t r[4];
        ptx::ldmatrix_x4(r, rows.address(tile, row, u + c));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if constexpr (kTiles == 2) {
            w[i / 2][c][i % 2] = r[i];
          } else {
            w[0][c + i / 2][i % 2] = r[i];
          }
        }
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        const int m = row / 16 + t;
#pragma unroll
        for (int v = 0; v < kSpan; v += kUnit) {
          std::uint32_t f[2][kUnit * C::kPairs];
#pragma unroll
          for (int c = 0; c < kUnit; ++c) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              std::uint32_t pairs[C::kPairs];
              C::pairs(w[t][v + c][h], pairs);
#pragma unroll
              for (int i = 0; i < C::kPairs; ++i) f[h][c * C::kPairs + i] = pairs[i];
            }
          }
#pragma unroll
          for (int k = 0; k < kSteps; ++k) {
            const std::uint32_t a[4] = {f[0][2 * k], f[1][2 * k], f[0][2 * k + 1], f[1][2 * k + 1]};
            const int step = (u + v) * C::kPairs / 2 + k;
#pragma unroll
            for (int n = 0; n < N; ++n) {
              if (step == 0) {
                const float zero[4] = {0.0F, 0.0F, 0.0F, 0.0F};
                mma<Bf16>(s[m][n], a, q[n][step], zero);
              } else {
                mma<Bf16>(s[m][n], a, q[n][step], s[m][n]);
              }
            }
          }
        }
      }
    }
  }
}

/// o[m][n] += V^T (16 of the first DV channels) times p of column tile n.
template <KvType F, int D, int DV, int Tokens, int N, bool Bf16>
__device__ __forceinline__ void value_products(float (&o)[DV / 16][N][4],
                                               const StoredRows<row_bytes(F, D), Tokens>& rows, std::uint32_t tile,
                                               const std::uint32_t (&p)[Tokens / 16][N][2]) {
  using C = Convert<F>;
  using R = StoredRows<row_bytes(F, D), Tokens>;
  constexpr int kUnit = C::kPairs == 1 ? 2 : 1;
  constexpr int kSpan = kUnit > R::kChunksPerLoad ? kUnit : R::kChunksPerLoad;
  constexpr int kTiles = R::kRowsPerLoad / 16;
#pragma unroll
  for (int row = 0; row < Tokens; row += R::kRowsPerLoad) {
#pragma unroll
    for (int u = 0; u < row_bytes(F, DV) / 16; u += kSpan) {
      std::uint32_t w[kTiles][kSpan][2];
#pragma unroll
      for (int c = 0; c < kSpan; c += R::kChunksPerLoad) {
        std::uint32_t r[4];
        ptx::ldmatrix_x4_trans(r, rows.address(tile, row, u + c));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if constexpr (kTiles == 2) {
            w[i / 2][c][i % 2] = r[i];
          } else {
            w[0][c + i / 2][i % 2] = r[i];
          }
        }
      }
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
#pragma unroll
        for (int v = 0; v < kSpan; v += kUnit) {
          std::uint32_t f[2][kUnit * C::kPairs];
#pragma unroll
          for (int c = 0; c < kUnit; ++c) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              std::uint32_t pairs[C::kPairs];
              C::pairs(w[t][v + c][h], pairs);
#pragma unroll
              for (int i = 0; i < C::kPairs; ++i) f[h][c * C::kPairs + i] = pairs[i];
            }
          }
#pragma unroll
          for (int k = 0; k < kUnit * C::kPairs / 2; ++k) {
            const std::uint32_t a[4] = {f[0][2 * k], f[0][2 * k + 1], f[1][2 * k], f[1][2 * k + 1]};
            const int m = (u + v) * C::kPairs / 2 + k;
#pragma unroll
            for (int n = 0; n < N; ++n) mma<Bf16>(o[m][n], a, p[row / 16 + t][n], o[m][n]);
          }
        }
      }
    }
  }
}

}  // namespace pagedkv::cuda::impl::decode
