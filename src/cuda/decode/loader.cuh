#pragma once
// Each warp feeds itself: it copies the tiles that it will work on into its own ring in shared memory, several ahead
// and across the borders of work items, so that no barrier stands between memory and the tensor cores.

#include <cstdint>

#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/schedule.cuh"
#include "cuda/decode/stage.cuh"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/memory.cuh"

namespace pagedkv::cuda::impl::decode {

/// Tiles of this warp in an item, counted by `i`: tile i starts at token `token(i)`.
struct WarpTiles {
  int base;
  int begin;
  int end;

  template <int Tokens>
  __device__ static WarpTiles of(const Sequence& seq, int split) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int origin = (seq.split0 + split) << seq.split_shift;
    const int first = seq.begin(split);
    const int last = seq.end(split);
    WarpTiles t;
    t.base = origin + warp * Tokens;
    if (last <= first) {
      t.begin = t.end = 0;
    } else {
      t.begin = ((first - origin) / Tokens - warp + kWarps - 1) / kWarps;
      t.end = ((last - 1 - origin) / Tokens - warp + kWarps) / kWarps;
    }
    return t;
  }
  template <int Tokens>
  __device__ int token(int i) const {
    return base + i * kWarps * Tokens;
  }
};

/// What a loader keeps in shared memory, because it is needed once per tile or less and registers are scarce.
struct LoaderShared {
  Cursor next;               ///< the item after the one being issued
  int last;                  ///< one past the keys of the item being issued
  std::uint64_t block[32];   ///< where the K data of each piece of the item's tiles is: entry e of piece e % pieces
  std::int64_t param_shift;  ///< from there to the parameters
  bool written;              ///< the new tokens of the CTA's items are in the cache
};

template <KvType K, KvType V, int D, int Rows>
class Loader {
  using S = Stage<K, V, D>;
  static constexpr int kTokens = S::kTokens;

 public:
  /// `work` is a copy in shared memory; `shared` is this warp's alone.
  __device__ Loader(const Params& p, const WorkParams& work, LoaderShared& shared)
      : p_(p), work_(work), shared_(shared), next_(&shared.next), policy_(ptx::evict_first_policy()) {
    lane_ = static_cast<int>(threadIdx.x) % 32;
    tiles_ = {0, 0, 0};
    i_ = 0;
    more_ = true;
    shared_.written = p.new_rows[0] == nullptr;
  }

  /// Makes `start` the first item, without reading what it refers to. May be called again until request_first().
  __device__ void plan_first(const Cursor& start) {
    entry_at_ = entry_place(start);
    next_.set(start);
    take(start);
    fresh_ = true;
  }
  /// May be called between these two.
  __device__ void prefetch_first() const {
    if (entry_at_ >= 0) {
      if (p_.table.pointers != nullptr) {
        ptx::prefetch_l2(p_.table.pointers + entry_at_);
      } else {
        ptx::prefetch_l2(p_.table.indices + entry_at_);
      }
    }
  }
  __device__ void request_first() { request(entry_at_); }

  /// Makes the warp's next tile known; Start until the loop over tiles. Must come before issue().
  template <bool Start>
  __device__ void settle() {
    while ((i_ == tiles_.end || (Start && fresh_)) && more_) activate<Start>();
  }

  /// Whether the warp's next tile has new tokens that are not in the cache yet.
  __device__ bool lacks_new_tokens() {
    settle<true>();
    return i_ < tiles_.end && min(tiles_.template token<kTokens>(i_) + kTokens, shared_.last) > ready_;
  }

  /// To be called when they are.
  __device__ void have_new_tokens() {
    __syncwarp();
    shared_.written = true;
    ready_ = shared_.last;
    __syncwarp();
  }

  /// Starts the copies of the warp's next tile into the stage at `stage`; closes one group in any case. Not while
  /// lacks_new_tokens().
  __device__ void issue(std::uint32_t stage) {
    if (i_ < tiles_.end) {
      const int t = tiles_.template token<kTokens>(i_);
      if (t >= first_ && t + kTokens <= ready_ && (1 << p_.block_shift) >= kTokens) {
        copy_tile(stage, t);
      } else {
        if constexpr (kCallsCopyPieces) {
          call_copy_pieces(work_, shared_, stage, t, i_ - begin_, first_, policy_);
        } else {
          copy_pieces(work_, shared_, stage, t, i_ - begin_, first_, policy_);
        }
      }
      ++i_;
    }
    ptx::commit_copies();
  }

 private:
  /// Where in the block table this lane's entry of an item is, or -1: entry e is piece e % pieces of the warp's tile
  /// e / pieces.
  __device__ std::int64_t entry_place(const Cursor& c) const {
    const int first = c.seq.begin(c.split);
    const int last = c.seq.end(c.split);
    const WarpTiles tiles = WarpTiles::of<kTokens>(c.seq, c.split);
    const int piece = 1 << piece_shift();
    const int i = tiles.begin + (lane_ << piece_shift()) / kTokens;
    const int t = tiles.token<kTokens>(i) + (lane_ << piece_shift()) % kTokens;
    return t < last && t + piece > first ? c.seq.table_row + (t >> p_.block_shift) : -1;
  }

  /// Loads the lane's table entry of the item next_.
  __device__ void request(std::int64_t at) {
    entry_ = 0;
    if (at >= 0) {
      if (p_.table.pointers != nullptr) {
        entry_ = reinterpret_cast<const unsigned long long*>(p_.table.pointers)[at];
      } else {
        entry_ = static_cast<std::uint64_t>(p_.table.indices[at]);
      }
    }
  }

  /// What follows from an item's keys alone.
  __device__ void take(const Cursor& c) {
    first_ = c.seq.begin(c.split);
    const int last = c.seq.end(c.split);
    ready_ = shared_.written ? last : min(local_count(p_, c.seq.k_len - c.seq.q_len), last);
    tiles_ = WarpTiles::of<kTokens>(c.seq, c.split);
    i_ = begin_ = tiles_.begin;
    tiles_.end = max(tiles_.end, i_);
  }

  /// Makes next_ the item whose tiles are issued.
  template <bool Start>
  __device__ void activate() {
    Cursor c = next_.get();
    if (!Start || !fresh_) take(c);
    fresh_ = false;
    std::uint64_t block = entry_;
    if (p_.table.pointers == nullptr) {
      block =
          reinterpret_cast<std::uint64_t>(p_.table.slab) + block * static_cast<std::uint64_t>(p_.region.block_bytes);
    }
    __syncwarp();
    shared_.block[lane_] =
        block + static_cast<std::uint64_t>(p_.region.layer_offset + c.head * p_.region.head_data_bytes);
    if (lane_ == 0) {
      shared_.last = c.seq.end(c.split);
      shared_.param_shift = p_.region.param_offset + c.head * (p_.region.head_param_bytes - p_.region.head_data_bytes);
    }
    c.advance(work_, Rows);
    more_ = c.valid();
    if (more_) request(entry_place(c));
    __syncwarp();
    next_.set(c);
  }

  /// log2 of the tokens of a tile that share a table entry.
  __device__ static int piece_shift(int block_shift) {
    constexpr int kTileShift = kTokens == 64 ? 6 : kTokens == 32 ? 5 : 4;
    return min(kTileShift, block_shift);
  }
  __device__ int piece_shift() const { return piece_shift(p_.block_shift); }

  /// K data of the block that holds token `token` of this warp's tiles of the item.
  __device__ static const char* block_of(const LoaderShared& shared, int token, int block_shift) {
    return reinterpret_cast<const char*>(shared.block[token >> piece_shift(block_shift)]);
  }

  /// Copies Count rows of Row bytes that lie one behind the other. Not Whole: rows outside [first, last) become zero;
  /// `t` is the token of the first row.
  template <bool Whole, int Row, int Count>
  __device__ static __forceinline__ void copy_rows(std::uint32_t to, const char* from, int t, int first, int last,
                                                   std::uint64_t policy) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    constexpr int kChunks = Count * Row / 16;
#pragma unroll
    for (int c = 0; c < kChunks; c += 32) {
      const int x = c + lane;
      if (c + 32 > kChunks && x >= kChunks) break;
      const int row = x / (Row / 16);
      const int chunk = x % (Row / 16);
      const std::uint32_t dst = to + static_cast<std::uint32_t>(row * Row + ((chunk ^ swizzle(Row, row)) * 16));
      if constexpr (Whole) {
        ptx::copy_async_16(dst, from + lane * 16 + c * 16, policy);
      } else {
        const bool valid = t + row >= first && t + row < last;
        ptx::copy_async_16(dst, from + x * 16, valid ? 16u : 0u, policy);
      }
    }
  }

  /// A tile inside one block, all of whose tokens are wanted.
  __device__ __forceinline__ void copy_tile(std::uint32_t stage, int t) {
    const char* block = block_of(shared_, (i_ - begin_) * kTokens, p_.block_shift);
    const int row = t & ((1 << p_.block_shift) - 1);
    copy_rows<true, S::kRowK, kTokens>(stage, block + row * S::kRowK, t, first_, ready_, policy_);
    if constexpr (!S::kShared)
      copy_rows<true, S::kRowV, kTokens>(stage + S::kV, block + p_.region.v_data_shift + row * S::kRowV, t, first_,
                                         ready_, policy_);
    if constexpr (kParams > 0) {
      if (lane_ < kParams * kTokens / 4) {
        const char* from = block + shared_.param_shift + (is_v_param(lane_) ? p_.region.v_param_shift : 0) + row * 4;
        ptx::copy_async_16(stage + S::kParamK + lane_ * 16, from + lane_ % (kTokens / 4) * 16, policy_);
      }
    }
  }

  /// Any tile, 16 tokens at a time.
  /// @param tile of the item's that this warp has
  __device__ static __forceinline__ void copy_pieces(const WorkParams& work, const LoaderShared& shared,
                                                     std::uint32_t stage, int t, int tile, int first,
                                                     std::uint64_t policy) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int mask = (1 << work.block_shift) - 1;
    const int last = shared.last;
#pragma unroll 1
    for (int sub = 0; sub < kTokens; sub += 16) {
      const char* block = block_of(shared, tile * kTokens + sub, work.block_shift);
      const int row = (t + sub) & mask;
      copy_rows<false, S::kRowK, 16>(stage + sub * S::kRowK, block + row * S::kRowK, t + sub, first, last, policy);
      if constexpr (!S::kShared)
        copy_rows<false, S::kRowV, 16>(stage + S::kV + sub * S::kRowV,
                                       block + work.region.v_data_shift + row * S::kRowV, t + sub, first, last, policy);
    }
    if constexpr (kParams > 0) {
      const int x = lane % (kTokens / 4) * 4;
      const char* block = block_of(shared, tile * kTokens + x, work.block_shift);
      if (lane < kParams * kTokens / 4) {
        const char* from =
            block + shared.param_shift + (is_v_param(lane) ? work.region.v_param_shift : 0) + ((t + x) & mask) * 4;
        // Tokens before `first` share a block with it, so their parameters can be read; the mask drops them.
        const int valid = t + x + 3 >= first ? min(max(last - (t + x), 0), 4) : 0;
        ptx::copy_async_16(stage + S::kParamK + lane * 16, from, static_cast<std::uint32_t>(4 * valid), policy);
      }
    }
  }

  /// The same, so that it does not lie in the loop over tiles. Where registers are scarce the call costs more than that
  /// gives.
  static constexpr bool kCallsCopyPieces = D <= 128 && Rows == 8;
  __device__ static __noinline__ void call_copy_pieces(const WorkParams& work, const LoaderShared& shared,
                                                       std::uint32_t stage, int t, int tile, int first,
                                                       std::uint64_t policy) {
    copy_pieces(work, shared, stage, t, tile, first, policy);
  }

  /// Sides that have parameters. A lane copies those of 4 tokens, keys first.
  static constexpr int kParams = (param_bytes(K) > 0 ? 1 : 0) + (param_bytes(V) > 0 && !S::kShared ? 1 : 0);
  __device__ static bool is_v_param(int lane) {
    return kParams == 2 ? lane >= kTokens / 4 : param_bytes(K) == 0;
  }

  const Params& p_;
  const WorkParams& work_;
  LoaderShared& shared_;
  SharedCursor next_;
  bool more_;  ///< whether there is such an item
  std::uint64_t policy_;
  std::int64_t entry_at_;  ///< of the first item
  bool fresh_;             ///< the first item has been taken, but is not active
  std::uint64_t entry_;
  int lane_;
  WarpTiles tiles_;
  int i_;
  int begin_;
  int first_;
  int ready_;  ///< one past the item's keys that are in the cache already
};

}  // namespace pagedkv::cuda::impl::decode
