#pragma once
// One row (a token's key or value of one head) in registers, spread over a few lanes of a warp. Follows the definition
// of write_kv: float32 from the load to the store, core/rope.h and core/quant.h in between.

#include <cstdint>

#include "cuda/ptx/arithmetic.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "pagedkv/core/half.h"
#include "pagedkv/core/quant.h"
#include "pagedkv/core/rope.h"
#include "pagedkv/types.h"

namespace pagedkv::cuda {

/// A row of D elements is D/8 chunks of 8. Each of kLanes lanes holds kSlots slots of two chunks; lane j has the slots
/// j, j + kLanes, ... Slots past kPairs (head_dim 576) stay empty. Few lanes with many elements each keep the work that
/// every lane of a row repeats (reduction, parameters) small.
template <int D, int Lanes>
struct RowShape {
  static constexpr int kDim = D;
  static constexpr int kLanes = Lanes;
  static constexpr int kPairs = D / 16;  ///< slots of a row
  static constexpr int kSlots = (kPairs + kLanes - 1) / kLanes;
  static constexpr int kRows = 32 / kLanes;  ///< rows of a warp
  static_assert(D % 16 == 0 && kLanes <= kPairs);
};

/// Lanes of a row where there are rows enough.
template <int D>
inline constexpr int kRowLanes = D == 96    ? 2
                                 : D >= 256 ? 8
                                            : 4;
/// Where rows are few and the time that one takes counts.
template <int D>
inline constexpr int kFewRowLanes = 2 * kRowLanes<D> <= D / 16 ? 2 * kRowLanes<D> : kRowLanes<D>;

/// Which two chunks a slot holds. Adjacent ones make the widest stores of codes. Otherwise they lie apart so that both
/// channels of a half-split pair meet in one lane: (s, s + split) for the rotated chunks, and the rest likewise.
struct ChunkMap {
  bool adjacent;
  int split;

  __device__ int first(int s) const { return adjacent ? 2 * s : s < split ? s : s + split; }
  __device__ int second(int s, int pairs) const { return adjacent ? 2 * s + 1 : s < split ? s + split : s + pairs; }
};

/// RoPE that a row gets.
enum class Rotation : std::uint8_t { none, interleaved, half_split };

/// The map that suits rows of a type and rotation. Only the half-split one depends on rope_dim.
template <class Shape>
__device__ __forceinline__ ChunkMap chunk_map(KvType type, Rotation r, int rope_dim) {
  if (r == Rotation::half_split) return {false, rope_dim / 16};
  return {type != KvType::same, Shape::kPairs};
}

/// The lane's part of a row as it is read: two chunks of T per slot.
template <class Shape>
struct RawRow {
  uint4 chunk[Shape::kSlots][2];
};

/// The same in float32.
template <class Shape>
struct Row {
  float x[Shape::kSlots][2][8];
};

/// What a row is and where the lane stands in it.
struct RowLane {
  ChunkMap map;
  int lane;  ///< 0 .. kLanes-1
};

template <class Shape>
__device__ __forceinline__ bool has_slot(int s) {
  return Shape::kPairs % Shape::kLanes == 0 || s < Shape::kPairs;
}

/// A warp's rows in shared memory. The padding lets lanes of neighbouring rows reach different banks.
template <int kRowBytes_>
struct RowStage {
  static constexpr int kRowBytes = kRowBytes_;
  static constexpr int kStride = kRowBytes + 16;
  static constexpr int kPieces = kRowBytes / 16;  ///< of a row

  static __device__ __forceinline__ int place(int row, int piece) { return row * kStride + 16 * piece; }

  // Rows of a stage are moved 16 bytes per lane, neighbouring lanes next to each other: a lane's item i is the warp's
  // item 32 * i + lane, piece by piece and row by row. Where 32 is a multiple of kPieces, a lane's items are the same
  // piece of rows that lie a constant apart.
  static constexpr bool kSamePiece = 32 % kPieces == 0;

  static __device__ __forceinline__ int item_row(int lane, int i) {
    return kSamePiece ? lane / kPieces + i * (32 / kPieces) : (32 * i + lane) / kPieces;
  }
  static __device__ __forceinline__ int item_piece(int lane, int i) {
    return (kSamePiece ? lane : 32 * i + lane) % kPieces;
  }
  static __device__ __forceinline__ int item_place(int lane, int i) {
    if constexpr (kSamePiece) return place(lane / kPieces, lane % kPieces) + i * (32 / kPieces) * kStride;
    return place(item_row(lane, i), item_piece(lane, i));
  }
};

/// Stage of rows of T as they are read.
template <class Shape>
using InputStage = RowStage<2 * Shape::kDim>;
template <class Shape>
inline constexpr int kStageBytes = Shape::kRows* InputStage<Shape>::kStride;

/// Reads the lane's chunks of a row of T.
template <class Shape>
__device__ __forceinline__ void read_row(RawRow<Shape>& raw, const void* row, RowLane at) {
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    const int s = at.lane + i * Shape::kLanes;
    if (!has_slot<Shape>(s)) continue;
    raw.chunk[i][0] = static_cast<const uint4*>(row)[at.map.first(s)];
    raw.chunk[i][1] = static_cast<const uint4*>(row)[at.map.second(s, Shape::kPairs)];
  }
}

template <class T>
__device__ __forceinline__ void unpack_chunk(float (&x)[8], const uint4& raw) {
  const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = ptx::unpack<T>(words[i]);
    x[2 * i] = f.x;
    x[2 * i + 1] = f.y;
  }
}

template <class T>
__device__ __forceinline__ uint4 pack_chunk(const float (&x)[8]) {
  return {ptx::pack<T>(x[0], x[1]), ptx::pack<T>(x[2], x[3]), ptx::pack<T>(x[4], x[5]), ptx::pack<T>(x[6], x[7])};
}

template <class Shape, class T>
__device__ __forceinline__ void unpack_row(Row<Shape>& row, const RawRow<Shape>& raw) {
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    unpack_chunk<T>(row.x[i][0], raw.chunk[i][0]);
    unpack_chunk<T>(row.x[i][1], raw.chunk[i][1]);
  }
}

/// row += bias, the bias being a row of T.
template <class Shape, class T>
__device__ __forceinline__ void add_bias(Row<Shape>& row, const T* bias, RowLane at) {
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    const int s = at.lane + i * Shape::kLanes;
    if (!has_slot<Shape>(s)) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int chunk = half == 0 ? at.map.first(s) : at.map.second(s, Shape::kPairs);
      float b[8];
      unpack_chunk<T>(b, ptx::load_16(bias + 8 * chunk));
#pragma unroll
      for (int e = 0; e < 8; ++e) row.x[i][half][e] = core::add_rn(row.x[i][half][e], b[e]);
    }
  }
}

__device__ __forceinline__ void read_shared_4(float (&to)[4], const float* from) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

/// RoPE of the row's first `dim` channels; cosine[p] and sine[p] belong to pair p, in shared memory.
template <class Shape, Rotation R>
__device__ __forceinline__ void rotate_row(Row<Shape>& row, const float* cosine, const float* sine, int dim,
                                           RowLane at) {
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    const int s = at.lane + i * Shape::kLanes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float c[4];
      float n[4];
      if constexpr (R == Rotation::interleaved) {
        const int chunk = half == 0 ? at.map.first(s) : at.map.second(s, Shape::kPairs);
        if (8 * chunk >= dim) continue;
        read_shared_4(c, cosine + 4 * chunk);
        read_shared_4(n, sine + 4 * chunk);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          core::rotate(row.x[i][half][2 * e], row.x[i][half][2 * e + 1], {n[e], c[e]});
        }
      } else if constexpr (R == Rotation::half_split) {
        if (16 * s >= dim) continue;
        read_shared_4(c, cosine + 8 * s + 4 * half);
        read_shared_4(n, sine + 8 * s + 4 * half);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          core::rotate(row.x[i][0][4 * half + e], row.x[i][1][4 * half + e], {n[e], c[e]});
        }
      }
    }
  }
}

/// Minimum and maximum over the lanes of a row.
template <class Shape>
__device__ __forceinline__ float2 reduce_range(float mn, float mx) {
#pragma unroll
  for (int d = 1; d < Shape::kLanes; d *= 2) {
    mn = core::min_nan(mn, __shfl_xor_sync(0xffffffffu, mn, d));
    mx = core::max_nan(mx, __shfl_xor_sync(0xffffffffu, mx, d));
  }
  return {mn, mx};
}

/// Minimum and maximum over the whole row, in all its lanes. All lanes of the warp call it.
template <class Shape>
__device__ __forceinline__ float2 row_range(const Row<Shape>& row, RowLane at) {
  float mn = row.x[0][0][0];
  float mx = mn;
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    if (!has_slot<Shape>(at.lane + i * Shape::kLanes)) continue;
#pragma unroll
    for (int e = 0; e < 16; ++e) {
      mn = core::min_nan(mn, row.x[i][e / 8][e % 8]);
      mx = core::max_nan(mx, row.x[i][e / 8][e % 8]);
    }
  }
  return reduce_range<Shape>(mn, mx);
}

/// The same for rows that have elements with and without a sign bit, as almost all do: `known` says whether the row is
/// of that kind.
///
/// As signed integers, floats with a sign bit lie below those without, and the latter in order; as unsigned ones the
/// former lie above, the lowest at the top. So the maximum is the largest signed and the minimum the largest unsigned
/// integer (a NaN is beyond infinity on its side), and these take three operands at a time.
template <class Shape>
__device__ __forceinline__ float2 signed_row_range(const Row<Shape>& row, RowLane at, bool& known) {
  std::int32_t top = __float_as_int(row.x[0][0][0]);
  std::uint32_t bottom = __float_as_uint(row.x[0][0][0]);
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    if (!has_slot<Shape>(at.lane + i * Shape::kLanes)) continue;
#pragma unroll
    for (int e = 0; e < 16; e += 2) {
      const float a = row.x[i][e / 8][e % 8];
      const float b = row.x[i][e / 8][e % 8 + 1];
      top = __vimax3_s32(top, __float_as_int(a), __float_as_int(b));
      bottom = __vimax3_u32(bottom, __float_as_uint(a), __float_as_uint(b));
    }
  }
#pragma unroll
  for (int d = 1; d < Shape::kLanes; d *= 2) {
    top = max(top, __shfl_xor_sync(0xffffffffu, top, d));
    bottom = max(bottom, __shfl_xor_sync(0xffffffffu, bottom, d));
  }
  known = (top >= 0) & (bottom >= 0x80000000u);
  return {__uint_as_float(bottom), __int_as_float(top)};
}

/// The same of a row whose values are the T that were read: two at a time.
template <class Shape, class T>
__device__ __forceinline__ float2 raw_range(const RawRow<Shape>& row, RowLane at) {
  std::uint32_t mn = row.chunk[0][0].x;
  std::uint32_t mx = mn;
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    if (!has_slot<Shape>(at.lane + i * Shape::kLanes)) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4& c = row.chunk[i][half];
      for (const std::uint32_t pair : {c.x, c.y, c.z, c.w}) {
        mn = ptx::min_nan_pair<T>(mn, pair);
        mx = ptx::max_nan_pair<T>(mx, pair);
      }
    }
  }
  const float2 low = ptx::unpack<T>(mn);
  const float2 high = ptx::unpack<T>(mx);
  return reduce_range<Shape>(core::min_nan(low.x, low.y), core::max_nan(high.x, high.y));
}

/// Where byte `at` of a stored row goes: one behind the other.
struct LinearRow {
  char* data;

  __device__ char* operator()(int at) const { return data + at; }
};

/// Stores the row rounded to T.
template <class Shape, class T, class Place>
__device__ __forceinline__ void store_same(Place to, const Row<Shape>& row, RowLane at) {
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    const int s = at.lane + i * Shape::kLanes;
    if (!has_slot<Shape>(s)) continue;
    *reinterpret_cast<uint4*>(to(16 * at.map.first(s))) = pack_chunk<T>(row.x[i][0]);
    *reinterpret_cast<uint4*>(to(16 * at.map.second(s, Shape::kPairs))) = pack_chunk<T>(row.x[i][1]);
  }
}

/// How elements become codes: as they come, for rows none of whose codes are out of range; clamped one by one; or, of
/// int8, clamped as they are packed (not for NaN).
enum class Clamp : std::uint8_t { none, each, packed };

/// kRoundMagic + code.
template <int Bits, Clamp C>
__device__ __forceinline__ std::uint32_t encode_bits(float x, core::RowEncoder e) {
  return __float_as_uint(C == Clamp::each ? core::encode_magic<Bits>(x, e) : core::encode_unclamped(x, e));
}

inline constexpr std::uint32_t kMagicBits = 0x4b400000u;  ///< of kRoundMagic

/// The 8 codes of a chunk. The low bits of kRoundMagic + code are the code; bytes are gathered without masking.
template <Clamp C>
__device__ __forceinline__ uint2 encode_chunk_int8(const float (&x)[8], core::RowEncoder e) {
  std::uint32_t r[8];
#pragma unroll
  for (int k = 0; k < 8; ++k) r[k] = encode_bits<8, C>(x[k], e);
  const auto four = [](std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
    if constexpr (C == Clamp::packed) {
      return ptx::pack_saturated(a - kMagicBits, b - kMagicBits,
                                 ptx::pack_saturated(c - kMagicBits, d - kMagicBits, 0));
    } else {
      return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
    }
  };
  return {four(r[0], r[1], r[2], r[3]), four(r[4], r[5], r[6], r[7])};
}

/// The word of a chunk's 8 codes. Nibbles are added up with shifts, and the bits of the magic constant, the same in
/// every element, taken away at the end.
template <Clamp C>
__device__ __forceinline__ std::uint32_t encode_chunk_int4(const float (&x)[8], core::RowEncoder e) {
  std::uint32_t word = 0u - kMagicBits * 0x11111111u;
#pragma unroll
  for (int k = 0; k < 8; ++k) word += encode_bits<4, C>(x[k], e) << core::int4_shift(k);
  return word;
}

/// Stores the row's codes.
template <class Shape, int Bits, Clamp C, class Place>
__device__ __forceinline__ void store_codes(Place to, const Row<Shape>& row, core::RowEncoder e, RowLane at) {
#pragma unroll
  for (int i = 0; i < Shape::kSlots; ++i) {
    const int s = at.lane + i * Shape::kLanes;
    if (!has_slot<Shape>(s)) continue;
    const int first = at.map.first(s);
    const int second = at.map.second(s, Shape::kPairs);
    if constexpr (Bits == 8) {
      const uint2 a = encode_chunk_int8<C>(row.x[i][0], e);
      const uint2 b = encode_chunk_int8<C>(row.x[i][1], e);
      if (at.map.adjacent) {
        *reinterpret_cast<uint4*>(to(16 * s)) = {a.x, a.y, b.x, b.y};
      } else {
        *reinterpret_cast<uint2*>(to(8 * first)) = a;
        *reinterpret_cast<uint2*>(to(8 * second)) = b;
      }
    } else {
      const std::uint32_t a = encode_chunk_int4<C>(row.x[i][0], e);
      const std::uint32_t b = encode_chunk_int4<C>(row.x[i][1], e);
      if (at.map.adjacent) {
        *reinterpret_cast<uint2*>(to(8 * s)) = {a, b};
      } else {
        *reinterpret_cast<std::uint32_t*>(to(4 * first)) = a;
        *reinterpret_cast<std::uint32_t*>(to(4 * second)) = b;
      }
    }
  }
}

/// How codes of rows of the usual kind are clamped. Of int8, 255 steps, each rounded to bf16's 8 bits, often miss the
/// row's end by more than half a step.
template <class T, int Bits>
inline constexpr Clamp kUsualClamp = dtype_of<T> == DType::bf16&& Bits == 8 ? Clamp::packed : Clamp::none;

/// Whether kUsualClamp is enough for a row. Codes grow with x, so the row's ends tell: rounding of scale and zero can
/// push them out of range. False for whatever is not finite.
template <class T, int Bits>
__device__ __forceinline__ bool usual_codes(float2 range, core::RowEncoder e) {
  constexpr float kSlack = kUsualClamp<T, Bits> == Clamp::packed ? 1048576.0F : 0.0F;  // where a unit is still 1
  return (core::encode_unclamped(range.x, e) >= core::kRoundMagic - kSlack) &
         (core::encode_unclamped(range.y, e) <= core::kRoundMagic + core::kMaxCode<Bits> + kSlack);
}

/// A row's parameters and how its elements become codes.
template <class T>
struct Quantiser {
  core::QuantParam<T> param;
  core::RowEncoder encoder;
};

/// That of a row, whose minimum and maximum are `range`, if all rows of the warp are of the usual kind (`usual` is what
/// is known of the lane's before): kUsualClamp is enough for their codes. Else returns false. All lanes of the warp
/// call it.
///
/// The bits of core::quant_param() and core::row_encoder() without their special cases: a scale that is zero, subnormal
/// or not finite makes `inv` NaN, so that the row is none of the usual kind. One Newton step after an approximation to
/// 2^-20 leaves a relative error of 2^-40, and 1/scale, where scale has at most 11 bits, is further than 2^-36 from
/// any midpoint of two float32: so it is rounded correctly.
template <class T, int Bits>
__device__ __forceinline__ bool usual_quantiser(float2 range, bool usual, Quantiser<T>& q) {
  q.param.zero = core::from_float<T>(core::add_rn(range.x, 0.0F));
  q.param.scale = core::from_float<T>(core::mul_rn(core::sub_rn(range.y, range.x), core::kStepFactor<Bits>));
  const float scale = core::to_float(q.param.scale);
  const float near = ptx::reciprocal_approx(scale);
  q.encoder = {core::to_float(q.param.zero), core::fma_rn(near, core::fma_rn(-scale, near, 1.0F), near)};
  return __all_sync(0xffffffffu, usual & usual_codes<T, Bits>(range, q.encoder)) != 0;
}

}  // namespace pagedkv::cuda
