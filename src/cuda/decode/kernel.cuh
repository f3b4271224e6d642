#pragma once
// The decode kernel. docs/decode.md derives it.

#include <cstdint>

#include "cuda/decode/join_splits.cuh"
#include "cuda/decode/loader.cuh"
#include "cuda/decode/new_tokens.cuh"
#include "cuda/decode/output.cuh"
#include "cuda/decode/params.h"
#include "cuda/decode/policy.h"
#include "cuda/decode/query.cuh"
#include "cuda/decode/query_rows.cuh"
#include "cuda/decode/read_on.cuh"
#include "cuda/decode/schedule.cuh"
#include "cuda/decode/softmax.cuh"
#include "cuda/decode/tile.cuh"
#include "cuda/prefetch.cuh"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/dependent_launch.cuh"
#include "cuda/ptx/shared_memory.cuh"

namespace pagedkv::cuda::impl::decode {

/// Keys that every query of a tile of rows sees.
struct SeenByAll {
  int from;
  int to;
};

/// Finds which keys each row of an item sees; `visible` is the warp's own, in shared memory.
/// @param tree_mask may be null
template <int Rows>
__device__ __forceinline__ SeenByAll find_visible(const WorkParams& p, const core::FastDivmod& group,
                                                  const std::uint32_t* tree_mask, const Cursor& item,
                                                  Visible<row_tiles(Rows)>& visible) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Sequence& seq = item.seq;
  const int rows = seq.q_len * p.group;
  const int row0 = item.row_tile * Rows;
  const int history = seq.k_len - seq.q_len;
  if (seq.q_len == 1 && p.window == 0 && tree_mask == nullptr) {  // all rows see all keys
    if (lane < 8 * row_tiles(Rows)) visible.row[lane] = {0, seq.last, kAllOfTree};
    __syncwarp();
    return {0, seq.last};
  }
  const int history_local = local_count(p, history);
  // Local key range that query `token` sees. With a tree mask its bits decide about the new tokens.
  const auto first_key = [&](int token) {
    const int from = history + token - p.window + 1;
    return p.window > 0 && from > 0 ? local_count(p, from) : 0;
  };
  const auto end_of_keys = [&](int token) {
    return tree_mask != nullptr ? seq.last : min(local_count(p, history + token + 1), seq.last);
  };
  if (lane == 0) {
    visible.history = history_local;
    visible.history_position = history;
  }
  if (lane < 8 * row_tiles(Rows)) {
    VisibleRow seen{0, 0, kAllOfTree};
    if (row0 + lane % Rows < rows) {
      const int token = group.div(row0 + lane % Rows);
      seen.from = first_key(token);
      seen.to = end_of_keys(token);
      if (tree_mask != nullptr) seen.tree = tree_mask[seq.q_begin + token];
    }
    visible.row[lane] = seen;
  }
  SeenByAll all{first_key(group.div(min(row0 + Rows, rows) - 1)), end_of_keys(group.div(row0))};
  if (tree_mask != nullptr) all.to = min(all.to, history_local);
  __syncwarp();
  return all;
}

/// The same for the first item, before its memory may be read.
template <int Rows>
__device__ __noinline__ SeenByAll find_visible_early(const WorkParams& p, const core::FastDivmod& group,
                                                     const Cursor& item, Visible<row_tiles(Rows)>& visible) {
  return find_visible<Rows>(p, group, nullptr, item, visible);
}

/// Waits for the kernels before this one and then, with `next_early`, lets the next one start.
__device__ __forceinline__ void wait_for_turn(bool next_early) {
  ptx::wait_for_predecessor();
  if (next_early) ptx::launch_dependents();
}

/// Whether a CTA looks at the lengths while the kernels before it may be writing them.
__device__ __forceinline__ bool looks_early(const WorkParams& p, bool ahead) {
  return kTargetArch >= 90 && !ahead && one_thread_each(p);
}

/// Starts loading the lengths of sequence threadIdx.x, if they may be read at once.
__device__ __forceinline__ Lengths fetch_first_lengths(const WorkParams& p, bool ahead) {
  const int tid = static_cast<int>(threadIdx.x);
  if (!one_thread_each(p) || tid >= p.batch) return {};
  if (ahead) return fetch_lengths(p, tid, When::complete);
  return looks_early(p, ahead) ? fetch_lengths(p, tid, When::early) : Lengths{};
}

/// Finds the CTA's part of the work, `start`. `ahead`: the lengths are there. Otherwise it waits for the kernels before
/// this one, looks at the lengths as they are meanwhile, and if they have not changed in the end, which they seldom do
/// from layer to layer, the part is known already. `plan(when)` is called when start is as it seems to be, and again if
/// it was not. All threads of the CTA call it; `p` and `start` are in shared memory.
/// @param first  what fetch_first_lengths() gave
template <class Plan>
__device__ __forceinline__ void start_work(const WorkParams& p, int rows_per_tile, Start& start, Lengths first,
                                           bool ahead, bool next_early, Plan plan) {
  const int tid = static_cast<int>(threadIdx.x);
  const bool early = looks_early(p, ahead);
  if (!early && !ahead) prefetch_lengths(p.cu_q, p.cu_k, p.table, p.batch);
  Lengths own{};
#pragma unroll 1
  for (When when = early ? When::early : When::complete;; when = When::complete) {
    if (when == When::complete && !ahead) wait_for_turn(next_early);
    Lengths now = checked(p, first, when);
    if (when == When::complete && !ahead && one_thread_each(p) && tid < p.batch) now = load_lengths(p, tid, when);
    if (early && when == When::complete && __syncthreads_count(!(now == own)) == 0) return;
    own = now;
    find_start(p, rows_per_tile, own, when, start);
    if (start.cursor.valid()) plan(when);
    if (when == When::complete) return;
  }
}

/// What a warp keeps in shared memory besides its ring.
template <int N>
struct WarpShared {
  LoaderShared loader;
  Cursor item;
  Visible<N> visible;
  RowFactors<N> factors[N > 1 ? 4 : 1];  ///< of lane % 4; with two tiles of rows registers are scarce
};

/// What a CTA keeps there.
template <int Rows>
struct CtaShared {
  Start start;
  Joining joining[2];  ///< of items in turns: one may be joined when the next one's results are written
  WorkParams work;     ///< the kernel's, for functions that are called, which read kernel parameters slowly
  OutputParams output;
  Exchange<Rows> exchange;
  ReadOnShared read_on;
  WarpShared<row_tiles(Rows)> warp[kWarps];
};

/// @tparam Rows that a warp works on at a time: 4, 8 or 16
template <class T, KvType K, KvType V, int D, int Rows>
__global__ __maxnreg__(most_registers(kTargetArch, K, V, D,
                                      row_tiles(Rows))) void decode_kernel(const __grid_constant__ Params p) {
  constexpr int N = row_tiles(Rows);
  using S = Stage<K, V, D>;
  constexpr int kTokens = S::kTokens;
  constexpr int kStages = stages(kTargetArch, K, V, D, N);
  constexpr int kDimV = value_dim(D);
  constexpr int kJoinAhead = join_ahead(D, N);
  static_assert(kStages >= 2);
  static_assert(Rows >= 8 || packs_rows(K, V, D), "the kernels for more rows must give the same bits");
  static_assert(sizeof(CtaShared<Rows>) <= extra_shared_bytes(N) && extra_shared_bytes(N) % 16 == 0);
  static_assert(sizeof(KeptRows<kDimV, Rows>) <= kept_bytes(D, N));
  static_assert(S::kBytes >= Rows * kDimV * 4, "an item's result goes through a stage");
  static_assert(S::kBytes >= kQueryRowsBytes<D, Rows>, "queries are prepared in a stage");
  static_assert(S::kBytes >= kNewTokenBytes<D>, "new tokens are made in a stage");
  constexpr bool kBf16K = dtype_of<T> == DType::bf16 && K == KvType::same;
  constexpr int kSums = packs_rows(K, V, D) && Rows >= 8 ? 2 : 1;
  using Soft = Softmax<T, K, V, kDimV, kTokens, Rows, kSums>;

  PAGEDKV_DYNAMIC_SHARED(__align__(128) char, shared);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  char* ring = shared + warp * kStages * S::kBytes;
  const std::uint32_t ring_address = ptx::shared_address(ring);
  auto& cta = *reinterpret_cast<CtaShared<Rows>*>(shared + kWarps * kStages * S::kBytes);
  auto& own_shared = cta.warp[warp];
  constexpr bool kKeeps = keeps_rows(kTargetArch, K, V, D, N);
  auto* kept_rows =
      reinterpret_cast<KeptRows<kDimV, Rows>*>(shared + kWarps * kStages * S::kBytes + extra_shared_bytes(N));
  const bool ahead = kTargetArch >= 90 && p.read_ahead;
  const Lengths first_lengths = fetch_first_lengths(p, ahead);
  // By one thread each: a load of parameters at different places is as many loads.
  if (threadIdx.x == 0) cta.work = static_cast<const WorkParams&>(p);
  if (threadIdx.x == 32) cta.output = static_cast<const OutputParams&>(p);
  if (threadIdx.x < 2) cta.joining[threadIdx.x].last = false;
  const bool writes = p.new_rows[0] != nullptr;
  // The first stage is free until the loop over tiles, in front of which a barrier stands if there are new tokens.
  auto& new_tokens = *reinterpret_cast<NewTokenStage<D>*>(ring);
  auto* turns = reinterpret_cast<std::uint64_t*>(shared + (kWarps - 1) * kStages * S::kBytes + kTurnsOffset<D>);
  if (writes && warp == kWarps - 1) copy_turns<D>(p.rope, turns);
  __syncthreads();
  // What can be known of the first item before its memory may be read.
  SharedCursor current(&own_shared.item);
  Loader<K, V, D, Rows> loader(p, cta.work, own_shared.loader);
  QueryRows<T, Rows> first_queries;
  Visible<N>& visible = own_shared.visible;
  SeenByAll seen_by_all{0, 0};
  // Whether `visible` and seen_by_all are found while the CTA waits; not where CTAs have several items, because then
  // some start late, do not wait, and would lose by it.
  const bool visible_early = p.token_cost == 0 && p.tree_mask == nullptr;
  int stage = 0;  // the free one; the others are in flight, oldest first
  int issued = 1;
  // MLA is short of registers, and this inside the planning takes some.
  constexpr bool kIssuesEarly = !shares_rows(D) || K != KvType::same;
  const auto issue_first = [&] {
#pragma unroll 1
    for (; issued < kStages && !loader.lacks_new_tokens(); ++issued) loader.issue(ring_address + issued * S::kBytes);
  };
  start_work(cta.work, Rows, cta.start, first_lengths, ahead, p.next_early, [&](When when) {
    const Cursor start = cta.start.cursor;
    current.set(start);
    loader.plan_first(start);
    if (when == When::early) loader.prefetch_first();
    if (ahead) loader.request_first();
    first_queries = QueryRows<T, Rows>(p, start);  // while the table entry comes
    if (ahead && kIssuesEarly) issue_first();
    if (visible_early) seen_by_all = find_visible_early<Rows>(cta.work, cta.output.group_div, current.get(), visible);
    if (writes) {
      prepare_new_tokens<D>(p, new_tokens, turns);
      plan_new_tokens<D>(p, cta.work, new_tokens, start, Rows, when);
    }
  });
  if (!cta.start.cursor.valid()) {
    if (ahead) wait_for_turn(p.next_early);  // so that this kernel does not end before those, even if no CTA has work
    return;
  }
  if (ahead) {
    if constexpr (!kIssuesEarly) issue_first();
    const Cursor& start = cta.start.cursor;
    if (start.seq.end(start.split) - start.seq.begin(start.split) > kWarps * kTokens * (kStages - 1) &&
        (1 << p.block_shift) >= kTokens) {
      wait_and_read_on<K, V, D, Loader<K, V, D, Rows>>(cta.work, cta.read_on, own_shared.loader, cta.warp[0].loader,
                                                       loader.tiles_left(start), p.read_on);
    }
    wait_for_turn(p.next_early);
  } else {
    loader.request_first();
  }
  NewRows<D> new_rows;
  if (writes) new_rows = fetch_new_rows<T, K, V, D>(cta.work, new_tokens);
  RawQueries<N, D> raw;
  fetch_queries<T, K>(raw, first_queries);
#pragma unroll 1
  for (bool written = !writes;; written = true) {
    issue_first();
    if (written) break;
    // As many copies are under way as can be without the new tokens.
    if (has_new_tokens(new_tokens) && write_new_tokens<T, K, V, D>(p, cta.work, new_tokens, Rows, new_rows)) {
      __syncthreads();
    }
    loader.have_new_tokens();
  }

  const StoredRows<S::kRowK, kTokens> k_rows;
  const StoredRows<S::kRowV, kTokens> v_rows;
  Queries<N, D> q;
  RowFactors<N> own_factors;
  const RowFactors<N>& factors = N > 1 ? own_shared.factors[lane % 4] : own_factors;
  typename Soft::States st;
  bool new_queries = true;
  KeptRows<kDimV, Rows>* kept = nullptr;  // of these queries' splits before this one, if all are this CTA's
  int first_split = current.get().split;  // of these queries that this CTA has
  int turn = 0;                           // which of cta.joining the item has

  for (bool more = true; more;) {
    if (new_queries) {
      const Cursor& item = current.get();
      const int rows = item.seq.q_len * p.group;
      const int row0 = item.row_tile * Rows;
      const int history = item.seq.k_len - item.seq.q_len;
      if constexpr (kKeeps) {
        const bool keep = item.seq.splits > 1 && item.seq.splits <= kMostJoined && item.begins_whole_rows(cta.work);
        kept = keep ? kept_rows : nullptr;
      }
      if (p.prepare_q) {  // in the free stage; the end of this block waits for the other lanes' reads
        char* prepared = ring + stage * S::kBytes;
        prepare_query_rows<T, D, Rows>(p, prepared, item.b, item.seq.q_begin, history, item.head, row0, rows);
        __syncwarp();
        fetch_prepared<T, K, Rows>(raw, prepared, rows - row0);
      }
      prepare_queries<T, K, N, D>(q, own_factors, p, raw);
      if (!visible_early) seen_by_all = find_visible<Rows>(p, p.group_div, p.tree_mask, item, visible);
      if (p.log_n_length > 0) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int position = history + p.group_div.div(min(row0 + n * 8 + (2 * (lane % 4) + e) % Rows, rows - 1));
            if (position > p.log_n_length) {
              (e == 0 ? own_factors.scale[n].x : own_factors.scale[n].y) *=
                  log2f(static_cast<float>(position)) * p.inverse_log2_n;
            }
          }
        }
      }
      if constexpr (N > 1) {
        if (lane < 4) own_shared.factors[lane] = own_factors;
      }
      __syncwarp();
    }

    const WarpTiles tiles = WarpTiles::of<kTokens>(current.get().seq, current.get().split);
    st.reset();
    for (int i = tiles.begin; i < tiles.end; ++i) {
      loader.template settle<false>();
      loader.issue(ring_address + stage * S::kBytes);
      stage = stage + 1 == kStages ? 0 : stage + 1;
      ptx::wait_copies<kStages - 1>();
      __syncwarp();

      const std::uint32_t tile = ring_address + stage * S::kBytes;
      const char* tile_data = ring + stage * S::kBytes;
      const int t = tiles.token<kTokens>(i);
      float s[kTokens / 16][N][4];
      std::uint32_t prob[kTokens / 16][N][2];
      key_products<K, D, kTokens, N, kBf16K>(s, k_rows, tile, q.fragment);
      const auto* k_params = reinterpret_cast<const std::uint32_t*>(tile_data + S::kParamK);
      const auto* v_params = reinterpret_cast<const std::uint32_t*>(tile_data + S::kParamV);
      const bool masked = t < seen_by_all.from || t + kTokens > seen_by_all.to;
      Soft::run(st, factors, visible, cta.work.own, p.softcap_log2, s, prob, k_params, v_params, t, masked,
                current.get().seq.first);
      value_products<V, D, kDimV, kTokens, N, Soft::kBf16P>(st.o, v_rows, tile + S::kV + p.v_channel_bytes, prob);
      __syncwarp();
    }
    publish<V, kDimV, Rows, Soft::kPLift != 0.0F>(st, shared, warp * kStages * S::kBytes + stage * S::kBytes,
                                                  cta.exchange);
    const Cursor item = current.get();
    Cursor next = item;
    next.advance(cta.work, Rows);
    more = next.valid();
    new_queries = next.b != item.b || next.head != item.head || next.row_tile != item.row_tile;
    __syncthreads();
    // The next item's queries are on their way while this one's results are written.
    if (more && new_queries) {
      fetch_queries<T, K>(raw, QueryRows<T, Rows>(p, next));
    } else {
      raw = {};  // not used, and so takes no registers in the loop over tiles
    }
    join_warps<T, V, kDimV, Rows>(p, item, shared, cta.exchange, kept);
    Arrival arrival{0};
    if (arrives() && kept == nullptr) {
      arrival = plan_arrival(p, cta.joining[turn], item, Rows, first_split, more && !new_queries);
    }
    current.set(next);
    __syncthreads();
    if (arrives()) arrive_split(cta.joining[turn], arrival);
    if (new_queries) first_split = 0;
    turn ^= 1;
    if (cta.joining[turn].last)
      join_splits<T, V, kDimV, Rows, kJoinAhead>(cta.output, cta.joining[turn]);  // of the item before this one
  }
  __syncthreads();
  if (cta.joining[turn ^ 1].last) join_splits<T, V, kDimV, Rows, kJoinAhead>(cta.output, cta.joining[turn ^ 1]);
  ptx::wait_copies<0>();
}

}  // namespace pagedkv::cuda::impl::decode
