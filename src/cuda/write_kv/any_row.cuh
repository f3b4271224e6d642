#pragma once
// Rows whose type and rotation are known at run time only: one piece of code for all of them.

#include <cstdint>

#include "cuda/ptx/memory.cuh"
#include "cuda/row.cuh"
#include "cuda/write_kv/params.cuh"

namespace pagedkv::cuda::impl::write_kv {

/// What happens to a row.
struct RowKind {
  KvType type;
  Rotation rotation;
  bool key;  ///< and not a value
};

__device__ __forceinline__ RowKind row_kind(const Params& p, Side side) {
  if (side == kValues) return {p.layout.format.v, Rotation::none, false};
  const Rotation rotated = p.rope.pairs == RopePairs::interleaved ? Rotation::interleaved : Rotation::half_split;
  return {p.layout.format.k, p.rope.dim == 0 ? Rotation::none : rotated, true};
}

/// The lane's row: a head's, and where it goes.
template <class T>
struct RowTarget {
  int head;
  const T* bias;  ///< the head's; may be null
  char* data;
  char* param;
  bool valid;  ///< whether there is such a row
};

/// Writes the rows of a warp. All its lanes call it.
/// @param cosine the cosines of the row's pairs, then their sines, in shared memory
template <class T, class Shape, class KeyTransform>
__device__ __forceinline__ void write_row(const RawRow<Shape>& raw, RowKind kind, RowLane at, const float* cosine,
                                          int rope_dim, const RowTarget<T>& to) {
  const bool transformed = kind.key && !KeyTransform::kIdentity;
  if (kind.type == KvType::same && kind.rotation == Rotation::none && !transformed && to.bias == nullptr) {
    if (!to.valid) return;
#pragma unroll
    for (int i = 0; i < Shape::kSlots; ++i) {  // a copy, which also keeps the payload of a NaN
      const int s = at.lane + i * Shape::kLanes;
      if (!has_slot<Shape>(s)) continue;
      ptx::store_16(to.data + 16 * at.map.first(s), raw.chunk[i][0]);
      ptx::store_16(to.data + 16 * at.map.second(s, Shape::kPairs), raw.chunk[i][1]);
    }
    return;
  }
  Row<Shape> row;
  unpack_row<Shape, T>(row, raw);
  if (to.bias != nullptr) add_bias<Shape>(row, to.bias, at);
  if (kind.rotation == Rotation::interleaved) {
    rotate_row<Shape, Rotation::interleaved>(row, cosine, cosine + rope_dim / 2, rope_dim, at);
  } else if (kind.rotation == Rotation::half_split) {
    rotate_row<Shape, Rotation::half_split>(row, cosine, cosine + rope_dim / 2, rope_dim, at);
  }
  if (transformed) KeyTransform{}(row, at, to.head);
  if (kind.type == KvType::same) {
    if (to.valid) store_same<Shape, T>(LinearRow{to.data}, row, at);
    return;
  }
  // Rows are few here: one way for all of them, since this code is in every decode kernel too.
  const float2 range = row_range<Shape>(row, at);
  const auto store = [&]<int kBits>() {
    const core::QuantParam<T> param = core::quant_param<T, kBits>(range.x, range.y);
    if (!to.valid) return;
    store_codes<Shape, kBits, Clamp::each>(LinearRow{to.data}, row, core::row_encoder<T>(param), at);
    if (at.lane == 0) ptx::store_4(to.param, core::bits_as<std::uint32_t>(param));
  };
  if (kind.type == KvType::int8) {
    store.template operator()<8>();
  } else {
    store.template operator()<4>();
  }
}

}  // namespace pagedkv::cuda::impl::write_kv
