#pragma once
// Queries that a decode kernel prepares itself, before it takes them as fragments. Rare beside the tiles, so what is
// here is not inlined, since registers are scarce there, and is short, since it has to be fetched again each time.

#include <cstdint>

#include "cuda/decode/params.h"
#include "cuda/rope_rows.cuh"
#include "cuda/row.cuh"
#include "pagedkv/core/rope.h"

namespace pagedkv::cuda::impl::decode {

/// Lanes of a row: as many as leave each of them a slot, up to 16.
template <int D>
inline constexpr int kQueryLanes = D >= 256   ? 16
                                   : D >= 128 ? 8
                                              : 4;
template <int D>
using QueryRowShape = RowShape<D, kQueryLanes<D>>;

/// Shared memory that prepare_query_rows() takes: the rows, and sines for as many tokens as a warp has rows at a time.
template <int D, int Rows>
inline constexpr int kQueryRowsBytes = (2 * Rows + 4 * QueryRowShape<D>::kRows) * D;

/// Queries of rows [row0, row0 + Rows) of a kv head as apply_rope() would give them, packed [Rows][D] at `to` in shared
/// memory. Rows from `rows` on are left out. All lanes of the warp call it.
template <class T, int D, int Rows>
__device__ __noinline__ void prepare_query_rows(const Params& p, char* to, int b, int q_begin, int history, int head,
                                                int row0, int rows) {
  using Shape = QueryRowShape<D>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int dim = p.q_rope_dim;
  const bool by_position = p.rope.base == nullptr && p.rope.mrope == MropeMode::none;
  const bool halves = p.rope.pairs == RopePairs::half_split;
  const RowLane at{{false, dim > 0 && halves ? dim / 16 : Shape::kPairs}, lane % Shape::kLanes};
  auto* sines = reinterpret_cast<float*>(to + Rows * D * 2);  // of a token: the cosines of all pairs, then the sines
  const int end = min(Rows, rows - row0);
  int first = 0;  // `sines` has those of tokens [first, last)
  int last = 0;
#pragma unroll 1
  for (int i0 = 0; i0 < end; i0 += Shape::kRows) {
    const int i = min(i0 + lane / Shape::kLanes, end - 1);
    int token = 0;
    int in_group = 0;
    p.group_div(token, in_group, row0 + i);
    const int q_head = head * p.group + in_group;
    RawRow<Shape> raw;
    read_row<Shape>(raw,
                    static_cast<const T*>(p.q) + p.q_strides.batch * b + p.q_strides.start * q_begin +
                        p.q_strides.token * token + p.q_strides.head * q_head,
                    at);
    if (dim > 0 && p.group_div.div(row0 + min(i0 + Shape::kRows, end) - 1) >= last) {
      first = p.group_div.div(row0 + i0);
      last = min(first + Shape::kRows, p.group_div.div(row0 + end - 1) + 1);
      __syncwarp();  // the other lanes' reads of the last ones
#pragma unroll 1
      for (int t = first; t < last; ++t) {
        float* cosine = sines + (t - first) * dim;
#pragma unroll 1
        for (int pair = lane; pair < dim / 2; pair += 32) {
          const std::uint64_t turn = p.rope.turn[pair];
          const std::uint64_t phase = by_position ? static_cast<std::uint64_t>(std::int64_t{history + t}) * turn
                                                  : phase_of_pair<>(p.rope, turn, pair, b, t, history + t);
          const core::SinCos turned = core::rope_sincos(p.rope, phase);
          cosine[pair] = turned.cos;
          cosine[pair + dim / 2] = turned.sin;
        }
      }
      __syncwarp();
    }
    Row<Shape> row;
    unpack_row<Shape, T>(row, raw);
    if (p.q_bias != nullptr) {
      add_bias<Shape>(row, static_cast<const T*>(p.q_bias) + std::int64_t{q_head} * D, at);
    }
    if (dim > 0) {
      const float* cosine = sines + (token - first) * dim;
      if (halves) {
        rotate_row<Shape, Rotation::half_split>(row, cosine, cosine + dim / 2, dim, at);
      } else {
        rotate_row<Shape, Rotation::interleaved>(row, cosine, cosine + dim / 2, dim, at);
      }
    }
    // Groups of lanes that share the last row store the same.
    store_same<Shape, T>(LinearRow{to + i * 2 * D}, row, at);
  }
}

}  // namespace pagedkv::cuda::impl::decode
