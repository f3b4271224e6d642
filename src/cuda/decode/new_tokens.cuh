#pragma once
// The call's new keys and values. Every CTA makes and stores those of its own work items before it attends over them,
// so that nobody waits for another CTA; CTAs with other rows of the same queries store the same bytes.
//
// The code is not inlined: behind the way of calls that write nothing, which would have to jump over it, it makes these
// up to 2 us slower. Called functions read kernel parameters through memory, which takes as long as the rest of the
// work. So what is needed of them comes to shared memory first, while the CTA waits for the kernels before it.

#include <cstdint>

#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/schedule.cuh"
#include "cuda/rope_rows.cuh"
#include "cuda/row.cuh"
#include "cuda/write_kv/any_row.cuh"

namespace pagedkv::cuda::impl::decode {

/// What of RoPE most calls need.
struct NewTokenRope {
  int dim;
  RopePairs pairs;
  bool by_position;  ///< phases are the position times the frequencies `turn`: no mrope, no base per sequence
  float attention_factor;
};

/// What a warp keeps in a stage of its ring while it makes new rows.
template <int D>
struct NewTokenStage {
  using Shape = RowShape<D, kFewRowLanes<D>>;

  std::uint64_t turn[D / 2];     ///< frequencies of all pairs, unless sequences have bases of their own
  float sines[Shape::kRows][D];  ///< of some tokens: the cosines of all pairs, then the sines
  int b;                         ///< the tokens' sequence, -1 for none
  int first;                     ///< they are [first, end), counted from the sequence's first new one
  int end;
  int history;  ///< keys before the new ones
  int rows_per_tile;
  NewTokenRope rope;
  WorkParams work;
};

/// To be called by each warp while it waits for the kernels before this one.
template <int D>
__device__ __forceinline__ void prepare_new_tokens(const Params& p, int rows_per_tile, NewTokenStage<D>& stage) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const core::RopeTable& rope = p.rope;
  if (lane == 0) {
    stage.b = -1;
    stage.rows_per_tile = rows_per_tile;
    stage.rope = {rope.dim, rope.pairs, rope.base == nullptr && rope.mrope == MropeMode::none, rope.attention_factor};
    stage.work = p;
  }
  if (rope.base == nullptr) {
    for (int i = lane; i < rope.dim / 2; i += 32) stage.turn[i] = rope.turn[i];
  }
  __syncwarp();
}

/// Sines of new tokens [first, end) of a sequence, if they are not there already.
template <int D>
__device__ __noinline__ void make_sines(const Params& p, NewTokenStage<D>& stage, int b, int first, int end,
                                        int history) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool same = stage.b == b && stage.first == first && stage.end == end && stage.history == history;
  __syncwarp();
  if (same) return;
  if (lane == 0) {
    stage.b = b;
    stage.first = first;
    stage.end = end;
    stage.history = history;
  }
  const int dim = stage.rope.dim;
#pragma unroll 1
  for (int t = first; t < end; ++t) {
    float* cosine = stage.sines[t - first];
#pragma unroll 1
    for (int pair = lane; pair < dim / 2; pair += 32) {
      core::SinCos turned;
      if (stage.rope.by_position) {
        turned = core::rope_sincos(stage.rope.attention_factor,
                                   static_cast<std::uint64_t>(std::int64_t{history} + t) * stage.turn[pair]);
      } else {
        turned = sines_of_pair(p.rope, stage.turn[pair], pair, b, t, history + t);
      }
      cosine[pair] = turned.cos;
      cosine[pair + dim / 2] = turned.sin;
    }
  }
  __syncwarp();
}

/// Sines of the first task, if `start` is where the CTA will start. To be called while it waits.
template <int D>
__device__ __forceinline__ void guess_sines(const Params& p, NewTokenStage<D>& stage, const Cursor& start) {
  if (threadIdx.x >= 32 || p.rope.dim == 0 || !stage.rope.by_position || p.own.size.divisor != 1) return;
  const int history = start.seq.k_len - start.seq.q_len;
  const int first = max(start.seq.begin(start.split) - history, 0);
  const int end = min(start.seq.end(start.split) - history, first + NewTokenStage<D>::Shape::kRows);
  if (first < end) make_sines<D>(p, stage, start.b, first, end, history);
}

/// A warp's part of the work. The CTA's tasks are the new rows of its items, those of one item and side that a warp
/// holds at a time; they go round its warps.
template <class T, KvType K, KvType V, int D>
class NewTokens {
  using Stage = NewTokenStage<D>;
  using Shape = typename Stage::Shape;
  using RowKind = write_kv::RowKind;
  static constexpr int kSides = shares_rows(D) ? 1 : 2;

 public:
  __device__ NewTokens(const Params& p, Stage& stage, const Cursor& start)
      : p_(p), stage_(stage), w_(stage.work), item_(start), number_(0) {
    look();
  }

  /// Makes and stores the rows of the warp's next task, if there is one.
  __device__ bool make_next() {
#pragma unroll 1
    while (first_ >= end_ || number_ % kWarps != warp()) {
      if (first_ < end_) {
        next();
        continue;
      }
      item_.advance(w_, stage_.rows_per_tile);
      if (!item_.valid()) return false;
      look();
    }
    make();
    next();
    return true;
  }

  /// Whether the CTA has any new tokens, when make_next() has found no more.
  __device__ bool any() const {
    return number_ > 0;
  }

 private:
  __device__ static int warp() {
    return static_cast<int>(threadIdx.x) / 32;
  }
  __device__ static int lane() {
    return static_cast<int>(threadIdx.x) % 32;
  }
  __device__ bool keys() const {
    return kSides == 1 || number_ % 2 == 0;
  }
  __device__ int history() const {
    return item_.seq.k_len - item_.seq.q_len;
  }

  /// New tokens of the item.
  __device__ void look() {
    const int begin = item_.seq.begin(item_.split);
    const int end = item_.seq.end(item_.split);
    if (w_.own.size.divisor == 1) {
      first_ = max(begin - history(), 0);
      end_ = end - history();
    } else {  // make() picks out those of this rank
      first_ = 0;
      end_ = max(local_count(w_, history()), begin) < end ? item_.seq.q_len : 0;
    }
  }

  __device__ void next() {
    if (++number_ % kSides == 0) first_ += Shape::kRows;
  }

  __device__ RowKind kind() const {
    if (!keys()) return {V, Rotation::none, false};
    const Rotation rotated = stage_.rope.pairs == RopePairs::interleaved ? Rotation::interleaved : Rotation::half_split;
    return {K, stage_.rope.dim == 0 ? Rotation::none : rotated, true};
  }

  __device__ void make() {
    const RowKind what = kind();
    const int side = what.key ? 0 : 1;
    const RowLane at{chunk_map<Shape>(what.type, what.rotation, stage_.rope.dim), lane() % Shape::kLanes};
    // Lanes without a token of their own repeat the last one and store nothing.
    const int token = min(first_ + lane() / Shape::kLanes, end_ - 1);
    const int position = history() + token;
    const int local = w_.own.size.divisor == 1 ? position : w_.own.local(position);
    const int block = max(local, 0) >> w_.block_shift;
    const int row = max(local, 0) & ((1 << w_.block_shift) - 1);
    RawRow<Shape> raw;
    read_row<Shape>(raw,
                    static_cast<const T*>(w_.new_rows[side]) + w_.new_strides.batch * item_.b +
                        w_.new_strides.start * item_.seq.q_begin + w_.new_strides.token * std::int64_t{token} +
                        w_.new_strides.head * item_.head,
                    at);
    const int readonly = w_.readonly_blocks != nullptr ? w_.readonly_blocks[item_.b] : 0;
    const bool valid = first_ + lane() / Shape::kLanes < end_ && local >= item_.seq.begin(item_.split) &&
                       local < item_.seq.end(item_.split) && block >= readonly;
    const std::int64_t entry = item_.seq.table_row + (valid ? block : 0);
    char* to_block = w_.table.pointers != nullptr ? static_cast<char*>(w_.table.pointers[entry])
                                                  : w_.table.slab + w_.table.indices[entry] * w_.region.block_bytes;
    if (what.rotation != Rotation::none) {
      make_sines<D>(p_, stage_, item_.b, first_, min(first_ + Shape::kRows, end_), history());
    }
    const Region& r = w_.region;
    to_block += r.layer_offset;
    write_kv::RowTarget<T> to{
        item_.head, static_cast<const T*>(w_.new_bias[side]),
        to_block + item_.head * r.head_data_bytes + (what.key ? 0 : r.v_data_shift) + row * row_bytes(what.type, D),
        to_block + r.param_offset + item_.head * r.head_param_bytes + (what.key ? 0 : r.v_param_shift) + row * 4,
        valid};
    if (to.bias != nullptr) to.bias += std::int64_t{item_.head} * D;
    const int slot = min(lane() / Shape::kLanes, end_ - 1 - first_);
    write_kv::write_row<T, Shape, write_kv::IdentityTransform>(raw, what, at, stage_.sines[slot], stage_.rope.dim, to);
  }

  const Params& p_;
  Stage& stage_;
  const WorkParams& w_;
  Cursor item_;
  int number_;  ///< of the task, in the CTA
  int first_;   ///< its tokens are [first_, end_), counted from the sequence's first new one, or fewer
  int end_;
};

/// Makes and stores the new tokens of the CTA's items from `start` on; all its warps call it, each with a stage of its
/// own. Returns whether there are any: then they are in the cache after the next barrier.
template <class T, KvType K, KvType V, int D>
__device__ __noinline__ bool write_new_tokens(const Params& p, NewTokenStage<D>& stage, const Cursor& start) {
  NewTokens<T, K, V, D> tasks(p, stage, start);
  while (tasks.make_next()) {
  }
  return tasks.any();
}

}  // namespace pagedkv::cuda::impl::decode
