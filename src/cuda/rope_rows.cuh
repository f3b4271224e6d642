#pragma once
// Cosines and sines of a chunk's tokens in shared memory: computed once per token, used by all its heads.

#include <cstdint>

#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/shared_memory.cuh"
#include "cuda/row.cuh"
#include "cuda/sequences.cuh"
#include "pagedkv/core/rope.h"

namespace pagedkv::cuda {

/// Floats from one token's row to the next. Padded so that what a quarter of a warp reads together, of two tokens,
/// falls into different banks: each lane reads 16 bytes, next to each other or, `spread`, 16 bytes apart.
__host__ __device__ constexpr int rope_row_floats(int dim, int lanes, bool spread) {
  return (dim + 31) / 32 * 32 + (spread ? 4 : 4 * lanes);
}

/// Per token the cosines of all pairs, then the sines.
struct RopeRows {
  float* data;
  int stride;

  __device__ float* cosines(int token) const { return data + token * stride; }
};

constexpr std::size_t rope_rows_bytes(int tokens, int stride) {
  return sizeof(float) * static_cast<std::size_t>(tokens) * static_cast<std::size_t>(stride);
}

/// Frequencies of all pairs into shared memory, except for per-sequence bases. Needs a barrier before fill_rope_rows().
__device__ __forceinline__ void load_turns(std::uint64_t* turns, const core::RopeTable& rope) {
  if (rope.base != nullptr) return;
  for (int i = static_cast<int>(threadIdx.x); i < rope.dim / 2; i += static_cast<int>(blockDim.x)) {
    turns[i] = rope.turn[i];
  }
}

/// The frequency from a base, which takes some hundred double precision instructions: not inlined.
template <class = void>
__device__ __noinline__ std::uint64_t turn_of_base(float base, int pair, int dim) {
  return core::turn_from_base(base, pair, dim);
}

/// Phase of a pair of a token, whatever the table has: not inlined, for kernels that seldom need more than the position
/// times `turn`, the pair's frequency unless the sequence has a base of its own.
template <class = void>
__device__ __noinline__ std::uint64_t phase_of_pair(const core::RopeTable& rope, std::uint64_t turn, int pair, int b,
                                                    std::int32_t token, std::int32_t position) {
  if (rope.base != nullptr) turn = core::turn_from_base(rope.base[b], pair, rope.dim);
  return static_cast<std::uint64_t>(core::rope_position(rope, pair, b, token, position)) * turn;
}

/// core::rope_sincos() of a pair of a token, whose frequency is `turn` unless the sequence has a base of its own.
__device__ __forceinline__ core::SinCos sines_of_pair(const core::RopeTable& rope, std::uint64_t turn, int pair, int b,
                                                      std::int32_t token, std::int32_t position) {
  if (rope.base != nullptr) turn = turn_of_base<>(rope.base[b], pair, rope.dim);
  return core::rope_sincos(rope,
                           static_cast<std::uint64_t>(core::rope_position(rope, pair, b, token, position)) * turn);
}

/// Frequencies of all pairs of one sequence that has a base of its own. All threads of the CTA call it; needs a barrier
/// before they are read.
__device__ __forceinline__ void turns_of_base(std::uint64_t* turns, const core::RopeTable& rope, std::int32_t b) {
  for (int i = static_cast<int>(threadIdx.x); i < rope.dim / 2; i += static_cast<int>(blockDim.x)) {
    turns[i] = turn_of_base<>(rope.base[b], i, rope.dim);
  }
}

/// to[e] = value without indexing registers at run time, which would put them into memory.
template <class V>
__device__ __forceinline__ void set_element(V (&to)[4], int e, V value) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i == e) to[i] = value;
  }
}

/// Positions of a chunk's tokens on the axes of mrope, in shared memory.
struct alignas(16) AxisIds {
  std::int32_t id[3][kMaxChunk];
  std::int64_t start[kMaxChunk];  ///< what is added to all three
};

/// Starts copies of the tokens' positions, which belong to the caller's next group of copies. One warp calls it.
__device__ __forceinline__ void start_axis_ids(AxisIds& to, const core::RopeTable& rope, const Tokens& tokens) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane >= tokens.count) return;
  const std::int32_t b = tokens.sequence[lane];
  const std::int32_t index = tokens.index[lane];
  const bool listed = rope.mrope_length != nullptr && index < rope.mrope_length[b];
  const std::int32_t delta = listed || rope.mrope_delta == nullptr ? 0 : rope.mrope_delta[b];
  to.start[lane] = listed ? 0 : std::int64_t{tokens.position[lane]} + delta;
  const std::int32_t* ids =
      listed ? rope.mrope_position_ids + (std::int64_t{rope.mrope_offsets[b]} + index) * 3 : nullptr;
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    if (listed) {
      ptx::copy_async_small<4>(ptx::shared_address(&to.id[axis][lane]), ids + axis);
    } else {
      to.id[axis][lane] = 0;
    }
  }
}

/// Fills the rows of the tokens. All threads of the CTA call it; needs a barrier before the rows are read.
/// @param axes with mrope the tokens' positions
__device__ __forceinline__ void fill_rope_rows(const RopeRows& rows, std::uint64_t* turns, const core::RopeTable& rope,
                                               const Tokens& tokens, const AxisIds& axes) {
  const int tid = static_cast<int>(threadIdx.x);
  const int threads = static_cast<int>(blockDim.x);
  const int pairs = rope.dim / 2;
  // Without a base per sequence the frequencies are known.
  const bool same_turns = rope.base == nullptr || tokens.one_sequence;
  if (rope.base != nullptr && tokens.one_sequence && tokens.count > 0) {
    turns_of_base(turns, rope, tokens.sequence[0]);
    __syncthreads();
  }
  // 16 threads per token, 4 pairs each.
  for (int first = tid % 16 * 4; first < pairs; first += 64) {
    const auto* known = reinterpret_cast<const ulonglong2*>(turns + first);
    std::uint64_t turn[4] = {known[0].x, known[0].y, known[1].x, known[1].y};
    const std::int32_t* ids[4] = {};
    if (rope.mrope != MropeMode::none) {
#pragma unroll
      for (int e = 0; e < 4; ++e) ids[e] = axes.id[core::mrope_axis(rope.mrope, rope.mrope_section, first + e)];
    }
    for (int token = tid / 16; token < tokens.count; token += threads / 16) {
      if (!same_turns) {
        const float base = rope.base[tokens.sequence[token]];
#pragma unroll 1
        for (int e = 0; e < 4; ++e) set_element(turn, e, turn_of_base<>(base, first + e, rope.dim));
      }
      std::uint64_t phase[4];
      if (rope.mrope != MropeMode::none) {
        const std::int64_t start = axes.start[token];
#pragma unroll
        for (int e = 0; e < 4; ++e) phase[e] = static_cast<std::uint64_t>(start + ids[e][token]) * turn[e];
      } else {
        const auto position = static_cast<std::uint32_t>(tokens.position[token]);
#pragma unroll
        for (int e = 0; e < 4; ++e) phase[e] = position * turn[e];
      }
      float c[4];
      float s[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const core::SinCos t = core::rope_sincos(rope, phase[e]);
        c[e] = t.cos;
        s[e] = t.sin;
      }
      float4* row = reinterpret_cast<float4*>(rows.cosines(token)) + first / 4;
      row[0] = {c[0], c[1], c[2], c[3]};
      row[pairs / 4] = {s[0], s[1], s[2], s[3]};
    }
  }
}

}  // namespace pagedkv::cuda
