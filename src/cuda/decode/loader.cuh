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
    return of<Tokens>(seq.origin(split), seq.begin(split), seq.end(split), static_cast<int>(threadIdx.x) / 32);
  }
  /// Those of any warp; the item's keys are [first, last), its split starts at `origin`.
  template <int Tokens>
  __device__ static WarpTiles of(int origin, int first, int last, int warp) {
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

/// What the copies that a loader has started leave of an item's tiles.
struct TilesLeft {
  WarpTiles tiles;
  int i;  ///< the next one
  int begin_of_first_warp;
  int first;  ///< the item's first key
  int ready;  ///< one past its keys that are in the cache
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
    issued_ = {};
    issued_.more = true;
    i_ = 0;
    shared_.written = p.new_rows[0] == nullptr;
  }

  /// Makes `start` the first item, without reading what it refers to. May be called again until request_first().
  __device__ void plan_first(const Cursor& start) {
    entry_at_ = entry_place(work_, start);
    next_.set(start);
    issued_ = take(work_, shared_, start);
    issued_.more = true;
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
  __device__ void request_first() { entry_ = load_entry(p_, entry_at_); }

  /// Makes the warp's next tile known; Start until the loop over tiles. Must come before issue().
  template <bool Start>
  __device__ void settle() {
    while ((i_ == issued_.tiles.end || (Start && fresh_)) && issued_.more) {
      issued_ = activate(work_, shared_, entry_, issued_, Start && fresh_);
      i_ = issued_.tiles.begin;
      entry_ = load_entry(p_, issued_.next);
      fresh_ = false;
    }
  }

  /// Whether the warp's next tile has new tokens that are not in the cache yet.
  __device__ bool lacks_new_tokens() {
    settle<true>();
    return i_ < issued_.tiles.end &&
           min(issued_.tiles.template token<kTokens>(i_) + kTokens, shared_.last) > issued_.ready;
  }

  /// To be called when they are.
  __device__ void have_new_tokens() {
    __syncwarp();
    shared_.written = true;
    issued_.ready = shared_.last;
    __syncwarp();
  }

  /// Starts the copies of the warp's next tile into the stage at `stage`; closes one group in any case. Not while
  /// lacks_new_tokens().
  __device__ void issue(std::uint32_t stage) {
    if (i_ < issued_.tiles.end) {
      const int t = issued_.tiles.template token<kTokens>(i_);
      if (t >= issued_.first && t + kTokens <= issued_.ready && (1 << p_.block_shift) >= kTokens) {
        copy_tile(stage, t);
      } else {
        if constexpr (kCallsCopyPieces) {
          call_copy_pieces(work_, shared_, stage, t, i_ - issued_.tiles.begin, issued_.first, policy_);
        } else {
          copy_pieces(work_, shared_, stage, t, i_ - issued_.tiles.begin, issued_.first, policy_);
        }
      }
      ++i_;
    }
    ptx::commit_copies();
  }

  /// Of the first item, whose tiles are issued.
  __device__ TilesLeft tiles_left(const Cursor& first) const {
    const auto of_first_warp = WarpTiles::of<kTokens>(first.seq.origin(first.split), issued_.first, shared_.last, 0);
    return {issued_.tiles, i_, of_first_warp.begin, issued_.first, issued_.ready};
  }

  /// K data of the block that holds token `token` of this warp's tiles of the item.
  __device__ static const char* block_of(const LoaderShared& shared, int token, int block_shift) {
    return reinterpret_cast<const char*>(shared.block[token >> piece_shift(block_shift)]);
  }

 private:
  /// What is known of the item whose tiles are issued.
  struct Issued {
    WarpTiles tiles;
    int first;
    int ready;          ///< one past the item's keys that are in the cache already
    bool more;          ///< whether there is an item after it
    std::int64_t next;  ///< that one's entry_place()
  };

  /// Where in the block table this lane's entry of an item is, or -1: entry e is piece e % pieces of the warp's tile
  /// e / pieces.
  __device__ static std::int64_t entry_place(const WorkParams& p, const Cursor& c) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int first = c.seq.begin(c.split);
    const int last = c.seq.end(c.split);
    const WarpTiles tiles = WarpTiles::of<kTokens>(c.seq, c.split);
    const int shift = piece_shift(p.block_shift);
    const int i = tiles.begin + (lane << shift) / kTokens;
    const int t = tiles.token<kTokens>(i) + (lane << shift) % kTokens;
    return t < last && t + (1 << shift) > first ? c.seq.table_row + (t >> p.block_shift) : -1;
  }

  /// Loads the lane's table entry of an item.
  __device__ static std::uint64_t load_entry(const Params& p, std::int64_t at) {
    if (at < 0) return 0;
    if (p.table.pointers != nullptr) return reinterpret_cast<const unsigned long long*>(p.table.pointers)[at];
    return static_cast<std::uint64_t>(p.table.indices[at]);
  }

  /// What follows from an item's keys alone.
  __device__ static Issued take(const WorkParams& p, const LoaderShared& shared, const Cursor& c) {
    Issued issued{};
    issued.first = c.seq.begin(c.split);
    const int last = c.seq.end(c.split);
    issued.ready = shared.written ? last : min(local_count(p, c.seq.k_len - c.seq.q_len), last);
    issued.tiles = WarpTiles::of<kTokens>(c.seq, c.split);
    issued.tiles.end = max(issued.tiles.end, issued.tiles.begin);
    return issued;
  }

  /// Makes shared.next the item whose tiles are issued; `block` is the lane's table entry of it, `issued` what take()
  /// gave if `taken`. Not inlined, for the sake of the loop over tiles; a load would have to end before it returns.
  __device__ static __noinline__ Issued activate(const WorkParams& p, LoaderShared& shared, std::uint64_t block,
                                                 Issued issued, bool taken) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    SharedCursor next(&shared.next);
    Cursor c = next.get();
    if (!taken) issued = take(p, shared, c);
    if (p.table.pointers == nullptr) {
      block = reinterpret_cast<std::uint64_t>(p.table.slab) + block * static_cast<std::uint64_t>(p.region.block_bytes);
    }
    __syncwarp();
    shared.block[lane] = block + static_cast<std::uint64_t>(p.region.layer_offset + c.head * p.region.head_data_bytes);
    if (lane == 0) {
      shared.last = c.seq.end(c.split);
      shared.param_shift = p.region.param_offset + c.head * (p.region.head_param_bytes - p.region.head_data_bytes);
    }
    c.advance(p, Rows);
    issued.more = c.valid();
    issued.next = issued.more ? entry_place(p, c) : -1;
    __syncwarp();
    next.set(c);
    return issued;
  }

  /// log2 of the tokens of a tile that share a table entry.
  __device__ static int piece_shift(int block_shift) {
    constexpr int kTileShift = kTokens == 64 ? 6 : kTokens == 32 ? 5 : 4;
    return min(kTileShift, block_shift);
  }

  /// Copies Count rows of Row bytes that lie one behind the other. Not Whole: rows outside [first, last) become zero;
  /// `t` is the token of the first row.
  template <bool Whole, int Row, int Count>
  __device__ static __forceinline__ void copy_rows(std::uint32_t to, const char* from, int t, int first, int last,
                                                   std::uint64_t policy) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    constexpr int kRowChunks = Row / 16;
    constexpr int kChunks = Count * kRowChunks;
    // Where 32 chunks are whole rows, the places of all of them follow from few that the lane has to compute.
    constexpr int kStepRows = 32 % kRowChunks == 0 ? 32 / kRowChunks : 0;
#pragma unroll
    for (int c = 0; c < kChunks; c += 32) {
      const int x = c + lane;
      if (c + 32 > kChunks && x >= kChunks) break;
      const int row = x / kRowChunks;
      std::uint32_t dst = to;
      if constexpr (kStepRows > 0) {
        const int first_row = lane / kRowChunks;
        const int swizzled = lane % kRowChunks ^ swizzle(Row, first_row + (c / 32 * kStepRows & 7));
        dst += static_cast<std::uint32_t>(first_row * Row + swizzled * 16) + static_cast<std::uint32_t>(c * 16);
      } else {
        dst += static_cast<std::uint32_t>(row * Row + (x % kRowChunks ^ swizzle(Row, row)) * 16);
      }
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
    const char* block = block_of(shared_, (i_ - issued_.tiles.begin) * kTokens, p_.block_shift);
    const int row = t & ((1 << p_.block_shift) - 1);
    copy_rows<true, S::kRowK, kTokens>(stage, block + row * S::kRowK, t, issued_.first, issued_.ready, policy_);
    if constexpr (!S::kShared)
      copy_rows<true, S::kRowV, kTokens>(stage + S::kV, block + p_.region.v_data_shift + row * S::kRowV, t,
                                         issued_.first, issued_.ready, policy_);
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
        // Tokens before `first` share a block with it, so their parameters are copied; Softmax uses none of them.
        const int valid = t + x + 3 >= first ? min(max(last - (t + x), 0), 4) : 0;
        ptx::copy_async_16(stage + S::kParamK + lane * 16, from, static_cast<std::uint32_t>(4 * valid), policy);
      }
    }
  }

  /// The same, so that it does not lie in the loop over tiles. Where registers are scarce the call costs more than that
  /// gives.
  static constexpr bool kCallsCopyPieces = D <= 128 && Rows <= 8;
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
  std::uint64_t policy_;
  std::int64_t entry_at_;  ///< of the first item
  std::uint64_t entry_;    ///< the lane's table entry of the item after the one whose tiles are issued
  bool fresh_;             ///< the first item has been taken, but is not active
  int lane_;
  Issued issued_;
  int i_;  ///< of its tiles
};

}  // namespace pagedkv::cuda::impl::decode
