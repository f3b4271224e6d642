#pragma once
// With read_ahead a CTA fills its rings while it waits for the kernels before it. Then it has time left, and the memory
// too: between two calls nobody reads. So it goes on and brings what the rings have no room for into L2.

#include <cstdint>

#include "cuda/decode/loader.cuh"
#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/stage.cuh"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/dependent_launch.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/shared_memory.cuh"

namespace pagedkv::cuda::impl::decode {

/// What a CTA keeps in shared memory for it.
struct ReadOnShared {
  alignas(16) std::uint32_t probe[kWarps][4];  ///< where 16 bytes go whose arrival says that the tile before has come
  std::uint64_t arrived[kWarps];               ///< barrier: they have
  std::uint64_t turn;                          ///< barrier: the kernels before this one have ended
};

/// Waits for the kernels before this one. Meanwhile the other warps than the first bring the tiles `left` of theirs and
/// of the first warp's into L2, each when the one before has come: so the loads of a kernel that is still reading go
/// ahead, and the queue is short when the wait is over; then only their own. All threads of the CTA call it.
/// @param first_warp  table entries of the first warp's tiles
/// @param most most tiles of a warp
template <KvType K, KvType V, int D, class Loader>
__device__ __noinline__ void wait_and_read_on(const WorkParams& work, ReadOnShared& shared, const LoaderShared& own,
                                              const LoaderShared& first_warp, TilesLeft left, ReadOnTiles most) {
  using S = Stage<K, V, D>;
  constexpr int kTokens = S::kTokens;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::uint32_t turn = ptx::shared_address(&shared.turn);
  const std::uint32_t arrived = ptx::shared_address(&shared.arrived[warp]);
  const std::uint32_t probe = ptx::shared_address(shared.probe[warp]);
  if (threadIdx.x == 0) ptx::init_barrier(turn, 1);
  if (lane == 0) ptx::init_barrier(arrived, 1);
  __syncthreads();
  if (warp == 0) {
    ptx::wait_for_predecessor();
    if (lane == 0) ptx::arrive_at(turn);
    __syncwarp();
    return;
  }
  std::uint32_t parity = 0;
  bool over = false;  // whether the kernels before this one have ended
#pragma unroll 1
  for (int i = left.i; i < left.tiles.end; ++i) {
    // The warp's own tile i, then perhaps the first warp's.
#pragma unroll 1
    for (bool of_first = false;; of_first = true) {
      const int begin = of_first ? left.begin_of_first_warp : left.tiles.begin;
      const int t = left.tiles.token<kTokens>(i) - (of_first ? warp * kTokens : 0);
      if (t >= left.first && t + kTokens <= left.ready) {
        if (--most.waiting < 0) {
          while (!ptx::phase_has_ended(turn, 0)) {
          }
        }
        // Before the look at `turn`: when that has come, the first warp goes on and changes its entries.
        const LoaderShared& entries = of_first ? first_warp : own;
        const char* block = Loader::block_of(entries, (i - begin) * kTokens, work.block_shift);
        over = __any_sync(0xffffffffu, ptx::phase_has_ended(turn, 0));
        if (over && of_first) break;
        if (over && --most.after < 0) return;
        const int row = t & ((1 << work.block_shift) - 1);
        const char* k = block + row * S::kRowK;
        const char* params = block + own.param_shift + row * 4;
        if (lane == 0) ptx::prefetch_l2(k, kTokens * S::kRowK);
        if (!S::kShared && lane == 1) {
          ptx::prefetch_l2(block + work.region.v_data_shift + row * S::kRowV, kTokens * S::kRowV);
        }
        if (param_bytes(K) > 0 && lane == 2) ptx::prefetch_l2(params, kTokens * 4);
        if (param_bytes(V) > 0 && !S::kShared && lane == 3) {
          ptx::prefetch_l2(params + work.region.v_param_shift, kTokens * 4);
        }
        if (lane == 0 && !over) {
          ptx::copy_async_16(probe, k + kTokens * S::kRowK - 16);
          ptx::arrive_after_copies(arrived);
          while (!ptx::phase_has_ended(arrived, parity) && !ptx::phase_has_ended(turn, 0)) {
          }
        }
        parity ^= 1;
        __syncwarp();
      }
      if (over || of_first || i % (kWarps - 1) + 1 != warp) break;
    }
  }
}

}  // namespace pagedkv::cuda::impl::decode
