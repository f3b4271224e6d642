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

/// What a slot of lanes makes a row of.
struct NewTokenSlot {
  NewToken token;
  int head;
  int q_begin;    ///< of the token's sequence
  int begin_key;  ///< of its item: rows outside it are another CTA's or rank's
  int end_key;
  std::int64_t table_row;
};

/// What a warp keeps in a stage of its ring while it makes new rows.
template <int D>
struct NewTokenStage {
  using Shape = RowShape<D, kFewRowLanes<D>>;

  alignas(16) float sines[Shape::kRows][D];  ///< per token the cosines of all pairs, then the sines
  const std::uint64_t* turn;     ///< the CTA's: frequencies of all pairs, unless sequences have bases of their own
  NewToken token[Shape::kRows];  ///< whose sines these are
  NewTokenSlot slot[Shape::kRows];
  int count;    ///< slots with a token of their own; the others repeat the last one
  bool more;    ///< there may be more
  Cursor item;  ///< that comes next, and its new tokens that are left: [first, end) or, with context parallelism, some
  int first;
  int end;
  NewTokenRope rope;
};

/// Where the last warp keeps the frequencies for all, behind its own NewTokenStage.
template <int D>
inline constexpr int kTurnsOffset = (static_cast<int>(sizeof(NewTokenStage<D>)) + 7) / 8 * 8;
template <int D>
inline constexpr int kNewTokenBytes = kTurnsOffset<D> + D / 2 * 8;

/// Copies the frequencies to `turn` in shared memory; one warp calls it, and a barrier must follow. One warp, because a
/// load of parameters at 32 different places is as many loads.
template <int D>
__device__ __forceinline__ void copy_turns(const core::RopeTable& rope, std::uint64_t* turn) {
  const int pairs = rope.base == nullptr ? rope.dim / 2 : 0;
#pragma unroll
  for (int i = 0; i < (D / 2 + 31) / 32; ++i) {
    const int pair = static_cast<int>(threadIdx.x) % 32 + i * 32;
    if (pair < pairs) turn[pair] = rope.turn[pair];
  }
}

/// To be called by each warp before plan_new_tokens().
template <int D>
__device__ __forceinline__ void prepare_new_tokens(const Params& p, NewTokenStage<D>& stage,
                                                   const std::uint64_t* turn) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const core::RopeTable& rope = p.rope;
  if (lane < NewTokenStage<D>::Shape::kRows) stage.token[lane].b = -1;
  if (lane == 0) {
    stage.turn = turn;
    stage.rope = {rope.dim, rope.pairs, rope.base == nullptr && rope.mrope == MropeMode::none, rope.attention_factor};
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

/// New tokens of an item: [first, end) or, with context parallelism, some of these.
template <int D>
__device__ __forceinline__ void look(const WorkParams& w, const Cursor& item, int& first, int& end) {
  const int history = item.seq.k_len - item.seq.q_len;
  const int begin_key = item.seq.begin(item.split);
  const int end_key = item.seq.end(item.split);
  if (w.own.size.divisor == 1) {
    first = max(begin_key - history, 0);
    end = end_key - history;
  } else {  // make_new_rows() picks out those of this rank
    first = 0;
    end = max(local_count(w, history), begin_key) < end_key ? item.seq.q_len : 0;
  }
}

/// Gives slots the CTA's next new tokens; stage.count says how many. All lanes of the warp call it.
/// @param when early: only those of the sequence that stage.item is in
template <int D>
__device__ __noinline__ void gather_new_tokens(const WorkParams& w, NewTokenStage<D>& stage, int rows_per_tile,
                                               When when) {
  using Shape = typename NewTokenStage<D>::Shape;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int slot = lane / Shape::kLanes;
  Cursor item = stage.item;
  int first = stage.first;
  int end = stage.end;
  NewTokenSlot own;
  int count = 0;
  bool more = true;
#pragma unroll 1
  while (count < Shape::kRows) {
    if (first >= end) {
      more = item.next_position(w) < item.end;
      if (!more || (when == When::early && item.ends_sequence(w))) break;
      item.advance(w, rows_per_tile);
      look<D>(w, item, first, end);
      continue;
    }
    const int take = min(Shape::kRows - count, end - first);
    if (slot >= count) {
      own = {{item.b, first + min(slot - count, take - 1), item.seq.k_len - item.seq.q_len},
             item.head,
             item.seq.q_begin,
             item.seq.begin(item.split),
             item.seq.end(item.split),
             item.seq.table_row};
    }
    count += take;
    first += take;
  }
  __syncwarp();
  if (count > 0 && lane % Shape::kLanes == 0) stage.slot[slot] = own;
  if (lane == 0) {
    stage.count = count;
    stage.more = more;
    stage.item = item;
    stage.first = first;
    stage.end = end;
  }
  __syncwarp();
}

/// Finds the first new tokens of a CTA whose work begins at `start`, and makes the first one's sines. Each warp calls
/// it, while it waits or, if the lengths were others then, behind that.
template <int D>
__device__ __forceinline__ void plan_new_tokens(const Params& p, const WorkParams& w, NewTokenStage<D>& stage,
                                                const Cursor& start, int rows_per_tile, When when) {
  int first = 0;
  int end = 0;
  look<D>(w, start, first, end);
  const bool none = first >= end && start.next_position(w) >= start.end;  // as in most CTAs that have one item
  if (threadIdx.x % 32 == 0) {
    stage.count = 0;
    stage.more = false;
    stage.item = start;
    stage.first = first;
    stage.end = end;
  }
  __syncwarp();
  if (none) return;
  gather_new_tokens<D>(w, stage, rows_per_tile, when);
  // Keys are the first warp's first rows. Other phases need memory that the kernels before this one may write.
  if (threadIdx.x < 32 && stage.count > 0 && stage.rope.dim > 0 && stage.rope.by_position) {
    make_sines<D>(p, stage, 0, stage.slot[0].token);
  }
}

/// Whether plan_new_tokens() found some or may have left some; the same for all warps of the CTA.
template <int D>
__device__ __forceinline__ bool has_new_tokens(const NewTokenStage<D>& stage) {
  return stage.count > 0 || stage.more;
}

/// A lane's part of a new row, and its block table entry.
template <int D>
struct NewRows {
  RawRow<typename NewTokenStage<D>::Shape> raw;
  std::uint64_t entry;
  int readonly;  ///< blocks of the sequence
};

/// Keys or values of new tokens: what the row's type, and so the order of its chunks in the lanes, depends on.
template <KvType K, KvType V, int D>
__device__ __forceinline__ write_kv::RowKind new_row_kind(const NewTokenRope& rope, bool keys) {
  const bool turned = keys && rope.dim > 0;
  return {keys ? K : V,
          !turned                                ? Rotation::none
          : rope.pairs == RopePairs::interleaved ? Rotation::interleaved
                                                 : Rotation::half_split,
          keys};
}

/// Index in this rank's cache, -1 if it is another's.
__device__ __forceinline__ int local_index(const WorkParams& w, const NewToken& token) {
  const int position = token.history + token.index;
  return w.own.size.divisor == 1 ? position : w.own.local(position);
}

/// Starts loading the rows of the slots.
template <class T, KvType K, KvType V, int D>
__device__ __forceinline__ NewRows<D> load_new_rows(const WorkParams& w, const NewTokenStage<D>& stage, bool keys) {
  using Shape = typename NewTokenStage<D>::Shape;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const NewTokenSlot& slot = stage.slot[lane / Shape::kLanes];
  const write_kv::RowKind what = new_row_kind<K, V, D>(stage.rope, keys);
  const RowLane at{chunk_map<Shape>(what.type, what.rotation, stage.rope.dim), lane % Shape::kLanes};
  NewRows<D> rows;
  read_row<Shape>(rows.raw,
                  static_cast<const T*>(w.new_rows[keys ? 0 : 1]) + w.new_strides.batch * slot.token.b +
                      w.new_strides.start * slot.q_begin + w.new_strides.token * std::int64_t{slot.token.index} +
                      w.new_strides.head * slot.head,
                  at);
  const std::int64_t entry = slot.table_row + (max(local_index(w, slot.token), 0) >> w.block_shift);
  rows.entry = w.table.pointers != nullptr ? reinterpret_cast<std::uint64_t>(w.table.pointers[entry])
                                           : static_cast<std::uint64_t>(w.table.indices[entry]);
  rows.readonly = w.readonly_blocks != nullptr ? w.readonly_blocks[slot.token.b] : 0;
  return rows;
}

/// Sides of a new token, each a row.
template <int D>
inline constexpr int kNewSides = shares_rows(D) ? 1 : 2;

/// Starts loading the warp's first rows, if it has some among those that plan_new_tokens() found: warp 0 keys, warp 1
/// values.
template <class T, KvType K, KvType V, int D>
__device__ __forceinline__ NewRows<D> fetch_new_rows(const WorkParams& w, const NewTokenStage<D>& stage) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (stage.count == 0 || warp >= kNewSides<D>) return {};
  return load_new_rows<T, K, V, D>(w, stage, warp == 0);
}

/// Sines of the slots' tokens. Returns the place of the lane's.
template <int D>
__device__ __forceinline__ int gather_sines(const Params& p, NewTokenStage<D>& stage) {
  const int slot = static_cast<int>(threadIdx.x) % 32 / NewTokenStage<D>::Shape::kLanes;
  NewToken last{-1, 0, 0};
  int r = -1;
  int own = 0;
#pragma unroll 1
  for (int i = 0; i < stage.count; ++i) {
    const NewToken token = stage.slot[i].token;
    if (!(token == last)) make_sines<D>(p, stage, ++r, token);
    last = token;
    if (slot >= i) own = r;
  }
  return own;
}

/// Makes and stores the rows of the slots.
template <class T, KvType K, KvType V, int D>
__device__ __forceinline__ void make_new_rows(const Params& p, const WorkParams& w, NewTokenStage<D>& stage,
                                              const NewRows<D>& rows, bool keys) {
  using Shape = typename NewTokenStage<D>::Shape;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const NewTokenSlot& slot = stage.slot[lane / Shape::kLanes];
  const write_kv::RowKind what = new_row_kind<K, V, D>(stage.rope, keys);
  const RowLane at{chunk_map<Shape>(what.type, what.rotation, stage.rope.dim), lane % Shape::kLanes};
  const int local = local_index(w, slot.token);
  const int block = max(local, 0) >> w.block_shift;
  const int row = max(local, 0) & ((1 << w.block_shift) - 1);
  const bool valid =
      lane / Shape::kLanes < stage.count && local >= slot.begin_key && local < slot.end_key && block >= rows.readonly;
  char* to_block = w.table.pointers != nullptr
                       ? reinterpret_cast<char*>(rows.entry)
                       : w.table.slab + static_cast<std::int64_t>(rows.entry) * w.region.block_bytes;
  const int sines = what.rotation == Rotation::none ? 0 : gather_sines<D>(p, stage);
  const Region& r = w.region;
  to_block += r.layer_offset;
  write_kv::RowTarget<T> to{
      slot.head, static_cast<const T*>(w.new_bias[keys ? 0 : 1]),
      to_block + slot.head * r.head_data_bytes + (keys ? 0 : r.v_data_shift) + row * row_bytes(what.type, D),
      to_block + r.param_offset + slot.head * r.head_param_bytes + (keys ? 0 : r.v_param_shift) + row * 4, valid};
  if (to.bias != nullptr) to.bias += std::int64_t{slot.head} * D;
  write_kv::write_row<T, Shape, write_kv::IdentityTransform>(rows.raw, what, at, stage.sines[sines], stage.rope.dim,
                                                             to);
  __syncwarp();  // sines and slots have been read
}

/// Makes and stores the new tokens of the CTA's items; all its warps call it, each with a stage of its own and what
/// fetch_new_rows() gave it. Returns whether there are any: then they are in the cache after the next barrier.
///
/// As many new tokens as a warp holds rows at a time and one side of them are a task; tasks go round the warps.
template <class T, KvType K, KvType V, int D>
__device__ __noinline__ bool write_new_tokens(const Params& p, const WorkParams& w, NewTokenStage<D>& stage,
                                              int rows_per_tile, NewRows<D> rows) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  int tasks = 0;        // of the CTA so far
  bool fetched = true;  // the first ones' rows have been
#pragma unroll 1
  for (;;) {
    if (stage.count > 0) {
#pragma unroll 1
      for (int side = 0; side < kNewSides<D>; ++side, ++tasks) {
        if (tasks % kWarps != warp) continue;
        if (!fetched) rows = load_new_rows<T, K, V, D>(w, stage, side == 0);
        make_new_rows<T, K, V, D>(p, w, stage, rows, side == 0);
      }
    }
    if (!stage.more) return tasks > 0;
    fetched = false;
    gather_new_tokens<D>(w, stage, rows_per_tile, When::complete);
  }
}

}  // namespace pagedkv::cuda::impl::decode
