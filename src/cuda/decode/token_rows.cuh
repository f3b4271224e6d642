#pragma once
// Rows of T that a decode kernel works on before it attends: new keys and values, and queries. Rare beside the tiles,
// so what is here is not inlined: registers are scarce there.

#include <cstdint>

#include "common/block_lookup.h"
#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/schedule.cuh"
#include "cuda/decode/stage.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/rope_rows.cuh"
#include "cuda/row.cuh"

namespace pagedkv::cuda::impl::decode {

/// Lanes of a row: as many as leave each of them a slot, up to 16.
template <int D>
inline constexpr int kLanesOfRow = D >= 256   ? 16
                                   : D >= 128 ? 8
                                              : 4;
template <int D>
using NewRowShape = RowShape<D, kLanesOfRow<D>>;

/// A lane of a row of which `rope_dim` channels will turn.
template <class Shape>
__device__ __forceinline__ RowLane lane_of_row(const core::RopeTable& rope, int rope_dim) {
  const bool halves = rope_dim > 0 && rope.pairs == RopePairs::half_split;
  return {{false, halves ? rope_dim / 16 : Shape::kPairs}, static_cast<int>(threadIdx.x) % Shape::kLanes};
}

/// RoPE of a row: new token `index` of sequence b, which stands at `position`. Each lane computes the sines of its own
/// pairs; no two lanes of a row have the same.
template <class Shape>
__device__ __forceinline__ void rotate_new_row(Row<Shape>& row, const core::RopeTable& rope, int b, int index,
                                               int position, RowLane at) {
  const bool halves = rope.pairs == RopePairs::half_split;
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    const int s = at.lane + i * Shape::kLanes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int chunk = half == 0 ? at.map.first(s) : at.map.second(s, Shape::kPairs);
      if ((halves ? 16 * s : 8 * chunk) >= rope.dim) continue;
      const int first = halves ? 8 * s + 4 * half : 4 * chunk;
      std::uint64_t turn[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) turn[e] = rope.turn[first + e];
      float c[4];
      float n[4];
      rope_of_4(rope, first, turn, rope.base != nullptr, b, index, position, c, n);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (halves) {
          core::rotate(row.x[i][0][4 * half + e], row.x[i][1][4 * half + e], {n[e], c[e]});
        } else {
          core::rotate(row.x[i][half][2 * e], row.x[i][half][2 * e + 1], {n[e], c[e]});
        }
      }
    }
  }
}

/// Queries of rows [row0, row0 + 8 N) of a kv head as apply_rope() would give them, packed [8 N][D] at `to` in shared
/// memory. Rows from `rows` on are left out. All lanes of the warp call it.
template <class T, int D, int N>
__device__ __noinline__ void prepare_query_rows(const Params& p, char* to, int b, int q_begin, int history, int head,
                                                int row0, int rows) {
  using Shape = NewRowShape<D>;
  const RowLane at = lane_of_row<Shape>(p.rope, p.q_rope_dim);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) % 32 / Shape::kLanes; i < 8 * N && row0 + i < rows; i += Shape::kRows) {
    int token = 0;
    int in_group = 0;
    p.group_div(token, in_group, row0 + i);
    const int q_head = head * p.group + in_group;
    RawRow<Shape> raw;
    read_row<Shape>(raw,
                    static_cast<const T*>(p.q) + p.q_strides.batch * b + p.q_strides.start * q_begin +
                        p.q_strides.token * token + p.q_strides.head * q_head,
                    at);
    Row<Shape> row;
    unpack_row<Shape, T>(row, raw);
    if (p.q_bias != nullptr) {
      add_bias<Shape>(row, static_cast<const T*>(p.q_bias) + std::int64_t{q_head} * D, at);
    }
    if (p.q_rope_dim > 0) rotate_new_row<Shape>(row, p.rope, b, token, history + token, at);
    store_same<Shape, T>(LinearRow{to + i * 2 * D}, row, at);
  }
}

/// First key of an item that this call writes; one past its last if there is none.
__device__ __forceinline__ int first_new_token(const Params& p, const Cursor& item) {
  std::int64_t from = local_count(p, item.seq.k_len - item.seq.q_len);
  if (p.fuse_write.readonly_blocks != nullptr) {
    from = max(from, std::int64_t{__ldg(p.fuse_write.readonly_blocks + item.b)} << p.block_shift);
  }
  return static_cast<int>(min(from, std::int64_t{item.seq.end(item.split)}));
}

/// Whether an item has such keys before `end`.
__device__ __forceinline__ bool has_new_tokens(const Params& p, const Cursor& item, int end) {
  return first_new_token(p, item) < min(end, item.seq.end(item.split));
}

/// Element of fuse_write's arrays where new token `index` of an item's head starts.
__device__ __forceinline__ std::int64_t new_row_at(const Params& p, const Cursor& item, int index) {
  const TokenStrides& s = p.fuse_write.strides;
  return s.batch * item.b + s.start * item.seq.q_begin + s.token * index + s.head * item.head;
}

/// Brings the new tokens of an item into L2, well before write_new_tokens() needs them. All lanes of the warp call it.
template <class T, int D>
__device__ __noinline__ void prefetch_new_tokens(const Params& p, const Cursor& item) {
  constexpr int kLines = (2 * D + 127) / 128;
  const int history = item.seq.k_len - item.seq.q_len;
  const int first = max(first_new_token(p, item), item.seq.begin(item.split));
  const int count = item.seq.end(item.split) - first;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < 2 * kLines * count; i += 32) {
    const auto* side = static_cast<const T*>(i % 2 == 0 ? p.fuse_write.k : p.fuse_write.v);
    const int index = p.own.position(first + i / 2 / kLines) - history;
    if (side != nullptr) ptx::prefetch_l2(side + new_row_at(p, item, index) + i / 2 % kLines * 64);
  }
}

/// One side of some new tokens, a row per group of lanes: puts new token `index`, row `row` of its tile, into the tile
/// as write_kv() would store it, and for an item's first rows of queries into the cache, at `data` and `param`. Tile
/// and parameters lie in shared memory. All lanes of the warp call it; nothing comes of those that are not `valid`.
template <class T, KvType Type, int D, bool kKeys>
__device__ __forceinline__ void write_new_row(const Params& p, const Cursor& item, char* tile, std::uint32_t* params,
                                              int row, int index, bool valid, char* data, char* param) {
  using Shape = NewRowShape<D>;
  constexpr int kRow = row_bytes(Type, D);
  const bool store = valid && item.row_tile == 0;
  const RowLane at = lane_of_row<Shape>(p.rope, kKeys ? p.rope.dim : 0);
  const auto* bias = static_cast<const T*>(kKeys ? p.fuse_write.k_bias : p.fuse_write.v_bias);
  const bool rotated = kKeys && p.rope.dim > 0;
  RawRow<Shape> raw;
  read_row<Shape>(raw, static_cast<const T*>(kKeys ? p.fuse_write.k : p.fuse_write.v) + new_row_at(p, item, index), at);
  const SwizzledRow to{tile + row * kRow, swizzle(kRow, row) * 16};
  if (Type == KvType::same && bias == nullptr && !rotated) {  // a copy, which also keeps the payload of a NaN
    if (valid) store_raw<Shape>(to, raw, at);
  } else {
    Row<Shape> x;
    unpack_row<Shape, T>(x, raw);
    if (bias != nullptr) add_bias<Shape>(x, bias + std::int64_t{item.head} * D, at);
    if (rotated) {
      rotate_new_row<Shape>(x, p.rope, item.b, index, item.seq.k_len - item.seq.q_len + index, at);
    }
    if constexpr (Type == KvType::same) {
      if (valid) store_same<Shape, T>(to, x, at);
    } else {
      const float2 range = row_range<Shape>(x, at);
      const auto stored = store_quantised < Shape, T, Type == KvType::int8 ? 8 : 4 > (to, x, range, at, valid);
      if (valid && at.lane == 0) params[row] = core::bits_as<std::uint32_t>(stored);
      if (store && at.lane == 0) ptx::store_4(param, core::bits_as<std::uint32_t>(stored));
    }
  }
  __syncwarp();
  if (!store) return;
#pragma unroll
  for (int i = 0; i < kRow; i += 16 * Shape::kLanes) {
    const int piece = i + 16 * at.lane;
    if (kRow % (16 * Shape::kLanes) != 0 && piece >= kRow) continue;
    ptx::store_16(data + piece, *reinterpret_cast<const uint4*>(to(piece)));
  }
}

/// Puts the new tokens among the keys [t, t + kTokens) of an item into their tile at `stage`, which the loader has left
/// free for them, and into the cache. Every warp that reads the tile does the former, that of the first rows of queries
/// also the latter. All lanes of the warp call it.
template <class T, KvType K, KvType V, int D>
__device__ __noinline__ void write_new_tokens(const Params& p, const Cursor& item, char* stage, int t) {
  using S = Stage<K, V, D>;
  using Shape = NewRowShape<D>;
  const int end = min(t + S::kTokens, item.seq.end(item.split));
#pragma unroll 1
  for (int i = max(max(first_new_token(p, item), item.seq.begin(item.split)), t); i < end; i += Shape::kRows) {
    const int own = i + static_cast<int>(threadIdx.x) % 32 / Shape::kLanes;
    const bool valid = own < end;
    const int local = valid ? own : i;
    const int in_block = local & ((1 << p.block_shift) - 1);
    const int index = p.own.position(local) - (item.seq.k_len - item.seq.q_len);
    char* head = common::entry_address(p.table, p.region.block_bytes, item.seq.table_row + (local >> p.block_shift)) +
                 p.region.layer_offset;
    char* data = head + item.head * p.region.head_data_bytes;
    char* param = head + p.region.param_offset + item.head * p.region.head_param_bytes + in_block * 4;
    write_new_row<T, K, D, true>(p, item, stage, reinterpret_cast<std::uint32_t*>(stage + S::kParamK), local - t, index,
                                 valid, data + in_block * S::kRowK, param);
    if constexpr (!S::kShared) {
      write_new_row<T, V, D, false>(p, item, stage + S::kV, reinterpret_cast<std::uint32_t*>(stage + S::kParamV),
                                    local - t, index, valid, data + p.region.v_data_shift + in_block * S::kRowV,
                                    param + p.region.v_param_shift);
    }
  }
}

}  // namespace pagedkv::cuda::impl::decode
