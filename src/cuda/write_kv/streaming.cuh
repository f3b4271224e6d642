#pragma once
// write_kv of many tokens: docs/kernels.md has the mapping and the numbers behind it.
//
// A CTA takes a chunk of the batch's new tokens and some KV heads. A warp takes as many tokens as it holds rows and
// walks over heads, keys or values: rows of consecutive tokens lie next to each other in a block, so its stores are
// contiguous, and from head to head only pointers move.

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/prefetch.cuh"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/dependent_launch.cuh"
#include "cuda/ptx/shared_memory.cuh"
#include "cuda/rope_rows.cuh"
#include "cuda/row.cuh"
#include "cuda/sequences.cuh"
#include "cuda/write_kv/any_row.cuh"
#include "cuda/write_kv/params.cuh"
#include "cuda/write_kv/policy.h"

namespace pagedkv::cuda::impl::write_kv {

/// What a warp does: one side of some heads, for the tokens of its rows.
template <class T>
struct Task {
  Side side;
  const T* source;      ///< k or v at the first head
  char* data;           ///< the lane's row's, at the first head
  char* param;          ///< likewise
  const float* cosine;  ///< the lane's row's; of keys
  std::int32_t token;   ///< row 0's, among the CTA's
  std::int32_t head;    ///< the first
  std::int32_t heads;   ///< how many
};

/// The warp's ring of stages: rows of the next heads are on their way while those of one head are worked on.
template <class Shape, class T>
struct Ring {
  using Stage = InputStage<Shape>;
  static constexpr int kItems = Shape::kRows * Stage::kPieces / 32;  ///< of a lane
  static_assert(Shape::kRows * Stage::kPieces % 32 == 0);

  char* stages;
  int warp_lane;
  int row;                   ///< the lane's
  int lane;                  ///< in its row
  const char* from[kItems];  ///< the lane's items of the task's first head
  std::int64_t shift;        ///< bytes to the next head
  int left;                  ///< heads that are not on their way yet

  /// Starts copying the rows of the task's next head, if there is one; one group of copies either way.
  __device__ __forceinline__ void start(const Params& p, int stage) {
    const std::uint32_t to = ptx::shared_address(stages) + static_cast<std::uint32_t>(stage);
    if (left > 0) {
#pragma unroll
      for (int i = 0; i < kItems; ++i) {
        ptx::copy_async_16(to + Stage::item_place(warp_lane, i), from[i] + shift);
      }
    }
    ptx::commit_copies();
    shift += p.head_bytes;
    --left;
  }
  /// Starts a task.
  __device__ __forceinline__ void begin(const Params& p, const Tokens& tokens, const Task<T>& t) {
#pragma unroll
    for (int i = 0; i < kItems; ++i) {
      from[i] = reinterpret_cast<const char*>(t.source + tokens.offset[t.token + Stage::item_row(warp_lane, i)]) +
                16u * static_cast<unsigned>(Stage::item_piece(warp_lane, i));
    }
    shift = 0;
    left = t.heads;
#pragma unroll
    for (int h = 0; h < kStages - 1; ++h) start(p, h * kStageBytes<Shape>);
  }
};

/// Walks round the stages of a ring.
template <class Shape>
struct RingPlace {
  int current = 0;                                ///< of the head that is worked on
  int next = (kStages - 1) * kStageBytes<Shape>;  ///< to be filled next: that of the head before

  __device__ __forceinline__ void advance() {
    next = current;
    current = current == (kStages - 1) * kStageBytes<Shape> ? 0 : current + kStageBytes<Shape>;
  }
};

/// Writes one head's rows, whatever they are and hold. Not inlined: the loops over heads stay small.
/// @param source the lane's row, in shared or global memory
template <class T, class Shape, class KeyTransform>
__device__ __noinline__ void write_any(const void* source, RowKind kind, RowLane at, const float* cosine, int rope_dim,
                                       RowTarget<T> to) {
  RawRow<Shape> raw;
  read_row<Shape>(raw, source, at);
  write_row<T, Shape, KeyTransform>(raw, kind, at, cosine, rope_dim, to);
}

template <class T, class Shape, class KeyTransform>
__device__ __forceinline__ void write_any(const Params& p, const Tokens& tokens, const Task<T>& t,
                                          const Ring<Shape, T>& ring, RowKind kind, int h, const void* source) {
  const RowLane at{chunk_map<Shape>(kind.type, kind.rotation, p.rope.dim), ring.lane};
  RowTarget<T> to{t.head + h, static_cast<const T*>(p.bias[t.side]), t.data + h * p.layout.head_data_bytes,
                  t.param + h * p.layout.head_param_bytes, t.token + ring.row < tokens.count};
  if (to.bias != nullptr) to.bias += std::int64_t{to.head} * Shape::kDim;
  write_any<T, Shape, KeyTransform>(source, kind, at, t.cosine, p.rope.dim, to);
}

/// All heads of a task, without a loop for its kind.
template <class T, class Shape, class KeyTransform>
__device__ __forceinline__ void write_any_heads(const Params& p, const Tokens& tokens, const Task<T>& t,
                                                Ring<Shape, T>& ring, RowKind kind) {
  RingPlace<Shape> at_stage;
  for (std::int32_t h = 0; h < t.heads; ++h) {
    ptx::wait_copies<kStages - 2>();
    __syncwarp();  // the other lanes' copies, and their reads of the stage that is overwritten next
    ring.start(p, at_stage.next);
    write_any<T, Shape, KeyTransform>(p, tokens, t, ring, kind, h,
                                      ring.stages + at_stage.current + InputStage<Shape>::place(ring.row, 0));
    at_stage.advance();
  }
}

/// All heads of a task of one kind. Returns those, one bit each, whose rows it left out because they are not of the
/// usual kind (usual_quantiser()), so that the loop holds nothing that rarely runs.
template <class T, class Shape, KvType Type, Rotation R, bool kBias, class Transform>
__device__ __forceinline__ unsigned write_heads(const Params& p, const Tokens& tokens, const Task<T>& t,
                                                Ring<Shape, T>& ring, Transform transform) {
  // A finished row goes to shared memory too, in place of the one that was read, and from there to the block: so the
  // warp stores whole lines.
  using Out = RowStage<kStoredBytes<Shape::kDim, Type>>;
  constexpr int kOutItems = (Shape::kRows * Out::kPieces + 31) / 32;
  constexpr bool kPlain = R == Rotation::none && Transform::kIdentity && !kBias;
  const RowLane at{chunk_map<Shape>(Type, R, p.rope.dim), ring.lane};
  char* to[kOutItems];
  bool to_valid[kOutItems];
#pragma unroll
  for (int i = 0; i < kOutItems; ++i) {
    const int r = Out::item_row(ring.warp_lane, i);
    const auto data = __shfl_sync(0xffffffffu, reinterpret_cast<unsigned long long>(t.data), r * Shape::kLanes);
    to[i] = reinterpret_cast<char*>(data) + 16u * static_cast<unsigned>(Out::item_piece(ring.warp_lane, i));
    to_valid[i] = r < Shape::kRows && t.token + r < tokens.count;
  }
  const bool valid = t.token + ring.row < tokens.count;
  std::int64_t shift = 0;  // bytes to the head
  char* param = t.param;
  unsigned unusual = 0;

  RingPlace<Shape> at_stage;
  for (std::int32_t h = 0; h < t.heads; ++h) {
    ptx::wait_copies<kStages - 2>();
    __syncwarp();  // the other lanes' copies, and their reads of the stage that is overwritten next
    char* stage = ring.stages + at_stage.current;
    bool store = true;
    if constexpr (Type == KvType::same && kPlain) {  // a copy, which also keeps the payload of a NaN
      ring.start(p, at_stage.next);
    } else {
      RawRow<Shape> raw;
      read_row<Shape>(raw, stage + InputStage<Shape>::place(ring.row, 0), at);
      ring.start(p, at_stage.next);
      Row<Shape> row;
      unpack_row<Shape, T>(row, raw);
      if constexpr (kBias) {
        add_bias<Shape>(row, static_cast<const T*>(p.bias[t.side]) + std::int64_t{t.head + h} * Shape::kDim, at);
      }
      rotate_row<Shape, R>(row, t.cosine, t.cosine + p.rope.dim / 2, p.rope.dim, at);
      transform(row, at, t.head + h);
      const LinearRow out{stage + Out::place(ring.row, 0)};
      if constexpr (Type == KvType::same) {
        __syncwarp();  // all lanes have read the stage
        store_same<Shape, T>(out, row, at);
      } else {
        bool known = true;
        const float2 range = kPlain ? raw_range<Shape, T>(raw, at) : signed_row_range<Shape>(row, at, known);
        __syncwarp();
        Quantiser<T> q;
        store = usual_quantiser<T, kCodeBits<Type>>(range, known, q);
        if (store) store_codes<Shape, kCodeBits<Type>, kUsualClamp<T, kCodeBits<Type>>>(out, row, q.encoder, at);
        if (!store) unusual |= 1u << h;
        if (store && valid && at.lane == 0) ptx::store_4(param, core::bits_as<std::uint32_t>(q.param));
        param += p.layout.head_param_bytes;
      }
      __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < kOutItems; ++i) {
      if (to_valid[i] && store) {
        ptx::store_16(to[i] + shift, *reinterpret_cast<const uint4*>(stage + Out::item_place(ring.warp_lane, i)));
      }
    }
    shift += p.layout.head_data_bytes;
    at_stage.advance();
  }
  return unusual;
}

/// The same with the loop chosen at run time.
template <class T, class Shape, Rotation R, bool kBias, class Transform>
__device__ __forceinline__ unsigned write_heads(const Params& p, const Tokens& tokens, const Task<T>& t,
                                                Ring<Shape, T>& ring, KvType type, Transform transform) {
  switch (type) {
    case KvType::same:
      return write_heads<T, Shape, KvType::same, R, kBias>(p, tokens, t, ring, transform);
    case KvType::int8:
      return write_heads<T, Shape, KvType::int8, R, kBias>(p, tokens, t, ring, transform);
    case KvType::int4:
      return write_heads<T, Shape, KvType::int4, R, kBias>(p, tokens, t, ring, transform);
  }
  return 0;
}
template <class T, class Shape, bool kBias, class KeyTransform>
__device__ __forceinline__ unsigned write_heads(const Params& p, const Tokens& tokens, const Task<T>& t,
                                                Ring<Shape, T>& ring, RowKind kind) {
  if (kind.rotation == Rotation::interleaved) {
    return write_heads<T, Shape, Rotation::interleaved, kBias>(p, tokens, t, ring, kind.type, KeyTransform{});
  }
  if (kind.rotation == Rotation::half_split) {
    return write_heads<T, Shape, Rotation::half_split, kBias>(p, tokens, t, ring, kind.type, KeyTransform{});
  }
  if constexpr (!KeyTransform::kIdentity) {
    if (kind.key) return write_heads<T, Shape, Rotation::none, kBias>(p, tokens, t, ring, kind.type, KeyTransform{});
  }
  return write_heads<T, Shape, Rotation::none, kBias>(p, tokens, t, ring, kind.type, IdentityTransform{});
}

/// What is copied into shared memory for each token while other things are done.
struct alignas(16) Arrivals {
  std::uint64_t entries[kMaxChunk];  ///< of the table, as they are stored
  AxisIds axes;
};

template <class T, class Shape, class KeyTransform>
__global__ void __launch_bounds__(kThreads, kCtasPerSm) streaming_kernel(const __grid_constant__ Params p) {
  PAGEDKV_DYNAMIC_SHARED(float4, dynamic_shared);
  auto* const arrivals = reinterpret_cast<Arrivals*>(dynamic_shared);
  __shared__ Span spans[kMaxChunk];
  __shared__ Tokens tokens;
  __shared__ __align__(16) std::uint64_t turns[core::kMaxRopePairs];
  ptx::in_shared(spans, tokens, turns);

  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool mrope = p.rope.dim > 0 && p.rope.mrope != MropeMode::none;

  if (p.rope.dim > 0) load_turns(turns, p.rope);
  prefetch_lengths(p.cu_q, p.cu_k, p.table, p.batch);
  ptx::wait_for_predecessor();
  ptx::launch_dependents();
  const std::int64_t t0 = p.cu_q[0] + std::int64_t{blockIdx.x} * p.chunk;
  const std::int64_t t1 = min(t0 + p.chunk, std::int64_t{p.cu_q[p.batch]});
  find_spans<kThreads>(p.cu_q, p.batch, t0, t1, spans, [&](std::int32_t b) { return load_span(p, b); });
  if (t0 >= t1) return;
  if (warp == 0) {
    list_tokens(tokens, spans, t0, t1, p.block_len, p.strides, 0, [&](const Span& s, std::int32_t index) {
      const std::int32_t position = s.history + index;
      return Place{position, p.owner.local(position)};
    });
    __syncwarp();
    // Table entries arrive while the sines are computed.
    if (lane < tokens.count) {
      const std::int64_t entry = tokens.entry[lane];
      const std::uint32_t to = ptx::shared_address(arrivals->entries + lane);
      if (p.table.pointers != nullptr) {
        ptx::copy_async_small<8>(to, p.table.pointers + entry);
      } else {
        ptx::copy_async_small<4>(to, p.table.indices + entry);
      }
    }
    if (mrope) start_axis_ids(arrivals->axes, p.rope, tokens);
  }
  ptx::commit_copies();
  __syncthreads();

  const int count = tokens.count;
  const int cta_head = static_cast<int>(blockIdx.y) * p.heads_per_cta;
  const int cta_heads = min(p.heads_per_cta, p.layout.kv_heads - cta_head);
  const int tasks = (count + Shape::kRows - 1) / Shape::kRows * p.tasks_per_group;
  const RopeRows rope_rows{reinterpret_cast<float*>(arrivals + 1), p.rope_stride};
  char* stages = reinterpret_cast<char*>(rope_rows.data) + p.rope_bytes + warp * kStages * kStageBytes<Shape>;
  Ring<Shape, T> ring{stages, lane, lane / Shape::kLanes, lane % Shape::kLanes, {}, 0, 0};

  // Task i of the CTA, with its first copies started, and later, when its loads have arrived, where its rows go.
  const auto begin = [&](int i) {
    const int group = i / p.tasks_per_group;
    const int rest = i - group * p.tasks_per_group;
    const int first = (p.sides == 1 ? rest : rest / 2) * p.heads_per_task;
    Task<T> t;
    t.side = p.sides == 2 && rest % 2 == 1 ? kValues : kKeys;
    t.token = group * Shape::kRows;
    t.head = cta_head + first;
    t.heads = min(p.heads_per_task, cta_heads - first);  // none or fewer where the heads do not divide evenly
    t.source = static_cast<const T*>(p.x[t.side]) + t.head * p.strides.head;
    ring.begin(p, tokens, t);
    return t;
  };
  const auto locate = [&](Task<T>& t) {
    const int token = min(t.token + ring.row, count - 1);
    char* block = p.table.pointers != nullptr
                      ? reinterpret_cast<char*>(static_cast<std::uintptr_t>(arrivals->entries[token]))
                      : p.table.slab + static_cast<std::int32_t>(arrivals->entries[token]) * p.layout.block_bytes;
    const std::int32_t row = tokens.row[token];
    t.data = block + (t.side == kKeys ? p.layout.k_data(p.layer, t.head, row) : p.layout.v_data(p.layer, t.head, row));
    t.param =
        block + (t.side == kKeys ? p.layout.k_param(p.layer, t.head, row) : p.layout.v_param(p.layer, t.head, row));
    t.cosine = rope_rows.cosines(token);
  };

  Task<T> t{};
  if (warp < tasks) t = begin(warp);
  if (mrope) {
    ptx::wait_copies<kStages - 1>();  // the positions
    __syncthreads();
  }
  if (p.rope.dim > 0) fill_rope_rows(rope_rows, turns, p.rope, tokens, arrivals->axes);
  ptx::wait_copies<kStages - 1>();  // the entries
  __syncthreads();
  for (int i = warp; i < tasks;) {
    locate(t);
    const RowKind kind = row_kind(p, t.side);
    unsigned left = 0;
    if (p.bias[t.side] == nullptr) {
      left = write_heads<T, Shape, false, KeyTransform>(p, tokens, t, ring, kind);
    } else if constexpr (kHasBiasLoops<Shape::kDim>) {
      left = write_heads<T, Shape, true, KeyTransform>(p, tokens, t, ring, kind);
    } else {
      write_any_heads<T, Shape, KeyTransform>(p, tokens, t, ring, kind);
    }
    for (; left != 0; left &= left - 1) {
      const int h = __ffs(static_cast<int>(left)) - 1;
      write_any<T, Shape, KeyTransform>(p, tokens, t, ring, kind, h,
                                        t.source + h * p.strides.head + tokens.offset[t.token + ring.row]);
    }
    i += kWarps;
    if (i < tasks) {
      __syncwarp();  // the last stages have been read
      t = begin(i);
    }
  }
}

}  // namespace pagedkv::cuda::impl::write_kv
