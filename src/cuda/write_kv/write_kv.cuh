#pragma once
// Launches of write_kv's kernels; instantiated by the generated files.

#include <algorithm>
#include <cstdint>

#include "cuda/device.h"
#include "cuda/launch.cuh"
#include "cuda/write_kv/few_tokens.cuh"
#include "cuda/write_kv/policy.h"
#include "cuda/write_kv/streaming.cuh"
#include "cuda/write_kv/write_kv.h"

namespace pagedkv::cuda::impl::write_kv {

template <class Kernel>
void Launch<Kernel>::run(const WriteKvArgs& args, Stream stream) {
  using T = typename Kernel::T;
  constexpr int kDim = Kernel::kHeadDim;
  const int sides = args.layout.shared_kv ? 1 : 2;
  const std::int64_t tokens = std::min<std::int64_t>(args.max_total_q, INT32_MAX);
  const Device& device = current_device();
  const bool overlap = device.arch >= 90;

  Params p{};
  p.layout = args.layout;
  p.layer = args.layer;
  p.table = args.table;
  p.batch = args.batch;
  p.cu_q = args.cu_q;
  p.cu_k = args.cu_k;
  p.readonly_blocks = args.readonly_blocks;
  p.x[0] = args.k;
  p.x[1] = args.v;
  p.bias[0] = args.k_bias;
  p.bias[1] = args.v_bias;
  p.strides = args.strides;
  p.head_bytes = args.strides.head * std::int64_t{sizeof(T)};
  p.rope = args.rope;
  p.owner = core::Ownership(args.cp);
  p.block_len = core::FastDivmod(args.layout.block_len);
  p.sides = sides;
  if constexpr (Kernel::kVariant == kFewTokens) {
    using Shape = RowShape<kDim, kFewRowLanes<kDim>>;
    p.heads_per_cta = kWarps / sides * Shape::kRows;
    const dim3 ctas(static_cast<unsigned>(tokens),
                    static_cast<unsigned>(ceil_div(args.layout.kv_heads, p.heads_per_cta)));
    launch("write_kv", &few_tokens_kernel<T, Shape, IdentityTransform>, {ctas, kThreads, 0, stream, overlap}, p);
  } else {
    using Shape = RowShape<kDim, kRowLanes<kDim>>;
    const KvFormat format = args.layout.format;
    const bool dense = format.k == KvType::int4 && format.v == KvType::int4;
    const Grid grid =
        choose_grid(tokens, args.layout.kv_heads, sides, Shape::kRows, dense, args.cp.size, device.multiprocessors);
    p.chunk = grid.chunk;
    p.heads_per_cta = grid.heads;
    p.heads_per_task = grid.heads_per_task;
    p.tasks_per_group = ceil_div(grid.heads, grid.heads_per_task) * sides;
    if (args.rope.dim > 0) {
      const bool spread = format.k != KvType::same || args.rope.pairs == RopePairs::half_split;
      p.rope_stride = rope_row_floats(args.rope.dim, Shape::kLanes, spread);
      p.rope_bytes = static_cast<std::int32_t>(rope_rows_bytes(grid.chunk, p.rope_stride));
    }
    const std::size_t shared =
        sizeof(Arrivals) + static_cast<std::size_t>(p.rope_bytes + kWarps * kStages * kStageBytes<Shape>);
    auto* const kernel = &streaming_kernel<T, Shape, IdentityTransform>;
    allow_dynamic_shared(reinterpret_cast<const void*>(kernel), shared);
    const dim3 ctas(static_cast<unsigned>(grid.chunks), static_cast<unsigned>(grid.head_groups));
    launch("write_kv", kernel, {ctas, kThreads, shared, stream, overlap}, p);
  }
}

}  // namespace pagedkv::cuda::impl::write_kv
