#pragma once
// The call's new keys and values. Every CTA makes and stores those of its own work items before it attends over them,
// so that nobody waits for another CTA; CTAs that work on other tiles of rows of the same KV head store the same bytes.
//
// Not inlined: calls that write nothing would jump over the code, which costs them 1 to 2 us. A called function reads
// kernel parameters by ordinary loads, which take as long as the rest of the work; so what it needs of them is copied
// to shared memory while the CTA waits for the kernels before it.

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

/// A new token, and where it stands.
struct NewToken {
  int b;        ///< its sequence, -1 for none
  int index;    ///< among the sequence's new tokens
  int history;  ///< keys before these

  __device__ bool operator==(const NewToken& o) const { return b == o.b && index == o.index && history == o.history; }
};

/// What a warp keeps in a stage of its ring while it makes new rows.
template <int D>
struct NewTokenStage {
  using Shape = RowShape<D, kFewRowLanes<D>>;

  std::uint64_t turn[D / 2];     ///< frequencies of all pairs, unless sequences have bases of their own
  float sines[Shape::kRows][D];  ///< per token the cosines of all pairs, then the sines
  NewToken token[Shape::kRows];  ///< whose sines these are
  NewTokenRope rope;
};

/// To be called by each warp while it waits for the kernels before this one.
template <int D>
__device__ __forceinline__ void prepare_new_tokens(const Params& p, NewTokenStage<D>& stage) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const core::RopeTable& rope = p.rope;
  if (lane < NewTokenStage<D>::Shape::kRows) stage.token[lane].b = -1;
  if (lane == 0) {
    stage.rope = {rope.dim, rope.pairs, rope.base == nullptr && rope.mrope == MropeMode::none, rope.attention_factor};
  }
  if (rope.base == nullptr) {
#pragma unroll 1
    for (int i = lane; i < rope.dim / 2; i += 32) stage.turn[i] = rope.turn[i];
  }
  __syncwarp();
}

/// Sines of a token into stage.sines[r], if they are not there already.
template <int D>
__device__ __noinline__ void make_sines(const Params& p, NewTokenStage<D>& stage, int r, NewToken of) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool same = stage.token[r] == of;
  __syncwarp();
  if (same) return;
  if (lane == 0) stage.token[r] = of;
  const int dim = stage.rope.dim;
  const int position = of.history + of.index;
  float* cosine = stage.sines[r];
#pragma unroll 1
  for (int pair = lane; pair < dim / 2; pair += 32) {
    const std::uint64_t turn = stage.turn[pair];
    const std::uint64_t phase = stage.rope.by_position ? static_cast<std::uint64_t>(std::int64_t{position}) * turn
                                                       : phase_of_pair<>(p.rope, turn, pair, of.b, of.index, position);
    const core::SinCos turned = core::rope_sincos(stage.rope.attention_factor, phase);
    cosine[pair] = turned.cos;
    cosine[pair + dim / 2] = turned.sin;
  }
  __syncwarp();
}

/// Sines of the first new token, if `start` is where the CTA will start. To be called while it waits.
template <int D>
__device__ __forceinline__ void guess_sines(const Params& p, NewTokenStage<D>& stage, const Cursor& start) {
  if (threadIdx.x >= 32 || p.rope.dim == 0 || !stage.rope.by_position || p.own.size.divisor != 1) return;
  const int history = start.seq.k_len - start.seq.q_len;
  const int first = max(start.seq.begin(start.split) - history, 0);
  if (first < start.seq.end(start.split) - history) make_sines<D>(p, stage, 0, {start.b, first, history});
}

/// A warp's part of the work. The new tokens of the CTA's items, as many as a warp holds rows at a time, and one side
/// of them are a task; tasks go round the warps.
template <class T, KvType K, KvType V, int D>
class NewTokens {
  using Stage = NewTokenStage<D>;
  using Shape = typename Stage::Shape;
  using RowKind = write_kv::RowKind;
  static constexpr int kSides = shares_rows(D) ? 1 : 2;

 public:
  __device__ NewTokens(const Params& p, const WorkParams& work, Stage& stage, int rows_per_tile, const Cursor& start)
      : p_(p), stage_(stage), w_(work), item_(start), rows_per_tile_(rows_per_tile), tasks_(0) {
    look();
  }

  /// Makes and stores all rows of the warp. Returns whether the CTA has any.
  __device__ bool make_all() {
#pragma unroll 1
    while (gather()) {
#pragma unroll 1
      for (int side = 0; side < kSides; ++side) {
        if (tasks_++ % kWarps == warp()) make(side == 0);
      }
    }
    return tasks_ > 0;
  }

 private:
  __device__ static int warp() {
    return static_cast<int>(threadIdx.x) / 32;
  }
  __device__ static int lane() {
    return static_cast<int>(threadIdx.x) % 32;
  }

  /// New tokens of the item.
  __device__ void look() {
    const int history = item_.seq.k_len - item_.seq.q_len;
    const int begin = item_.seq.begin(item_.split);
    const int end = item_.seq.end(item_.split);
    if (w_.own.size.divisor == 1) {
      first_ = max(begin - history, 0);
      end_ = end - history;
    } else {  // make() picks out those of this rank
      first_ = 0;
      end_ = max(local_count(w_, history), begin) < end ? item_.seq.q_len : 0;
    }
  }

  /// Gives each slot (kLanes lanes) a new token; slots that are left repeat the last one. Returns whether there is any.
  __device__ bool gather() {
    const int slot = lane() / Shape::kLanes;
    count_ = 0;
#pragma unroll 1
    while (count_ < Shape::kRows) {
      if (first_ >= end_) {
        if (!item_.valid()) break;
        item_.advance(w_, rows_per_tile_);
        if (!item_.valid()) break;
        look();
        continue;
      }
      const int take = min(Shape::kRows - count_, end_ - first_);
      if (slot >= count_) {
        token_ = {item_.b, first_ + min(slot - count_, take - 1), item_.seq.k_len - item_.seq.q_len};
        q_begin_ = item_.seq.q_begin;
        head_ = item_.head;
        begin_key_ = item_.seq.begin(item_.split);
        end_key_ = item_.seq.end(item_.split);
        table_row_ = item_.seq.table_row;
      }
      count_ += take;
      first_ += take;
    }
    return count_ > 0;
  }

  /// Sines of the slots' tokens. Returns the place of the lane's.
  __device__ int gather_sines() {
    const int slot = lane() / Shape::kLanes;
    NewToken last{-1, 0, 0};
    int r = -1;
    int own = 0;
#pragma unroll 1
    for (int i = 0; i < count_; ++i) {
      const int from = i * Shape::kLanes;
      const NewToken token{__shfl_sync(0xffffffffu, token_.b, from), __shfl_sync(0xffffffffu, token_.index, from),
                           __shfl_sync(0xffffffffu, token_.history, from)};
      if (!(token == last)) make_sines<D>(p_, stage_, ++r, token);
      last = token;
      if (slot >= i) own = r;
    }
    return own;
  }

  __device__ void make(bool keys) {
    const bool turned = keys && stage_.rope.dim > 0;
    const Rotation rotation = !turned                                       ? Rotation::none
                              : stage_.rope.pairs == RopePairs::interleaved ? Rotation::interleaved
                                                                            : Rotation::half_split;
    const RowKind what{keys ? K : V, rotation, keys};
    const int side = keys ? 0 : 1;
    const RowLane at{chunk_map<Shape>(what.type, rotation, stage_.rope.dim), lane() % Shape::kLanes};
    const int position = token_.history + token_.index;
    const int local = w_.own.size.divisor == 1 ? position : w_.own.local(position);
    const int block = max(local, 0) >> w_.block_shift;
    const int row = max(local, 0) & ((1 << w_.block_shift) - 1);
    RawRow<Shape> raw;
    read_row<Shape>(raw,
                    static_cast<const T*>(w_.new_rows[side]) + w_.new_strides.batch * token_.b +
                        w_.new_strides.start * q_begin_ + w_.new_strides.token * std::int64_t{token_.index} +
                        w_.new_strides.head * head_,
                    at);
    const int readonly = w_.readonly_blocks != nullptr ? w_.readonly_blocks[token_.b] : 0;
    const bool valid = lane() / Shape::kLanes < count_ && local >= begin_key_ && local < end_key_ && block >= readonly;
    const std::int64_t entry = table_row_ + (valid ? block : 0);
    char* to_block = w_.table.pointers != nullptr ? static_cast<char*>(w_.table.pointers[entry])
                                                  : w_.table.slab + w_.table.indices[entry] * w_.region.block_bytes;
    const int sines = turned ? gather_sines() : 0;
    const Region& r = w_.region;
    to_block += r.layer_offset;
    write_kv::RowTarget<T> to{
        head_, static_cast<const T*>(w_.new_bias[side]),
        to_block + head_ * r.head_data_bytes + (keys ? 0 : r.v_data_shift) + row * row_bytes(what.type, D),
        to_block + r.param_offset + head_ * r.head_param_bytes + (keys ? 0 : r.v_param_shift) + row * 4, valid};
    if (to.bias != nullptr) to.bias += std::int64_t{head_} * D;
    write_kv::write_row<T, Shape, write_kv::IdentityTransform>(raw, what, at, stage_.sines[sines], stage_.rope.dim, to);
    __syncwarp();  // the sines have been read
  }

  const Params& p_;
  Stage& stage_;
  const WorkParams& w_;
  Cursor item_;
  int rows_per_tile_;
  int tasks_;  ///< of the CTA so far
  int first_;  ///< the item's new tokens that are left are [first_, end_) or, with context parallelism, some of them
  int end_;
  int count_;  ///< slots with a token of their own
  // The slot's token, and the item that it belongs to.
  NewToken token_;
  int q_begin_;
  int head_;
  int begin_key_;
  int end_key_;
  std::int64_t table_row_;
};

/// Makes and stores the new tokens of the CTA's items from `start` on; all its warps call it, each with a stage of its
/// own. Returns whether there are any: then they are in the cache after the next barrier.
template <class T, KvType K, KvType V, int D>
__device__ __noinline__ bool write_new_tokens(const Params& p, const WorkParams& work, NewTokenStage<D>& stage,
                                              int rows_per_tile, const Cursor& start) {
  return NewTokens<T, K, V, D>(p, work, stage, rows_per_tile, start).make_all();
}

}  // namespace pagedkv::cuda::impl::decode
