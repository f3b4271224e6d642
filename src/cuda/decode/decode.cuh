#pragma once
// Launches of the decode kernels; instantiated by the generated files.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda/decode/decode.h"
#include "cuda/decode/kernel.cuh"
#include "cuda/decode/workspace.h"
#include "cuda/device.h"
#include "cuda/launch.cuh"

namespace pagedkv::cuda::impl::decode {

inline int log2_of(int x) {
  int n = 0;
  while ((1 << n) < x) ++n;
  return n;
}

inline Params make_params(const DecodeArgs& a, Workspace workspace) {
  const BlockLayout& l = a.layout;
  const WorkspaceLayout places = workspace_layout(a);
  Params p{};
  p.table = a.table;
  p.region = {l.layer_offset(a.layer), l.head_data_bytes, l.v_data_shift(), l.param_offset,
              l.head_param_bytes,      l.v_param_shift(), l.block_bytes};
  p.v_channel_bytes = static_cast<std::uint32_t>(row_bytes(l.format.v, a.v_offset));
  p.block_shift = log2_of(l.block_len);
  p.split_shift = split_shift(l.head_dim);
  p.short_split_shift = short_split_shift(l.format.k, l.format.v, l.head_dim);
  p.short_len = kShortLength;
  p.long_len = kLongLength;
  p.long_end = long_end(l.format.k, l.format.v, l.head_dim, l.kv_heads);
  p.batch = a.batch;
  p.max_k_len = a.max_k_len;
  p.cu_q = a.cu_q;
  p.cu_k = a.cu_k;
  p.finished = a.finished;
  p.tree_mask = a.tree_mask;
  p.kv_heads = l.kv_heads;
  p.group = a.q_heads / l.kv_heads;
  p.q_heads = a.q_heads;
  p.group_div = core::FastDivmod(p.group);
  p.q = a.q;
  p.q_strides = a.q_strides;
  p.o = a.o;
  p.o_strides = a.o_strides;
  p.o_is_f32 = a.o_is_f32;
  p.lse = a.lse;
  const float scale = a.softmax_scale > 0.0F ? a.softmax_scale : 1.0F / std::sqrt(static_cast<float>(l.head_dim));
  p.scale_log2 = scale * kLog2E;
  p.softcap_log2 = a.softcap * kLog2E;
  p.log_n_length = a.log_n_length;
  p.inverse_log2_n = a.log_n_length > 1 ? 1.0F / std::log2(static_cast<float>(a.log_n_length)) : 0.0F;
  p.window = a.window;
  p.sinks = a.cp.rank == 0 ? a.sinks : nullptr;
  p.own = core::Ownership(a.cp);
  const FuseWrite& write = a.fuse_write;
  p.new_rows[0] = write.k;
  p.new_rows[1] = write.v;
  p.new_bias[0] = write.k_bias;
  p.new_bias[1] = write.v_bias;
  p.new_strides = write.strides;
  p.readonly_blocks = write.readonly_blocks;
  p.rope = a.rope;
  p.q_bias = a.q_bias;
  p.q_rope_dim = a.rotate_q ? a.rope.dim : 0;
  p.prepare_q = a.q_bias != nullptr || p.q_rope_dim > 0;
  p.read_ahead = a.read_ahead;
  if (places.splits > 1) {
    char* at = static_cast<char*>(workspace.data);
    p.partials.counters = reinterpret_cast<std::uint64_t*>(at);
    at += places.counters_bytes;
    p.partials.o = reinterpret_cast<float*>(at);
    at += places.o_bytes;
    p.partials.ml = reinterpret_cast<float2*>(at);
    p.partials.splits = places.splits;
    p.partials.runs = places.runs;
  }
  return p;
}

template <class Kernel>
void Launch<Kernel>::run(const DecodeArgs& args, Workspace workspace, Stream stream) {
  using T = typename Kernel::T;
  constexpr KvType kK = Kernel::kK;
  constexpr KvType kV = Kernel::kV;
  constexpr int kDim = Kernel::kHeadDim;
  constexpr int kRows = Kernel::kVariant;
  constexpr int kTiles = row_tiles(kRows);

  const Device& device = current_device();
  Params p = make_params(args, workspace);
  const std::int64_t row_tiles = (std::int64_t{args.max_q_len} * p.group + kRows - 1) / kRows;
  const int max_splits = workspace_layout(args).splits;
  const std::int64_t items = std::int64_t{args.batch} * p.kv_heads * row_tiles * max_splits;
  const std::int64_t resident = std::int64_t{device.multiprocessors} * ctas_per_sm(device.arch, kK, kV, kDim, kTiles);
  const auto ctas = static_cast<unsigned>(ctas_of(items, resident, kK, kV, kDim));
  // With a CTA for every item each gets one; otherwise by expected time.
  p.token_cost = items <= resident ? 0 : 1;
  p.item_cost = items <= resident ? 1 : item_bytes(kK, kV, kDim) / token_bytes(kK, kV, kDim);
  p.unit_cost = items <= resident ? 0 : unit_bytes(kK, kV, kDim) / token_bytes(kK, kV, kDim);

  p.next_early = starts_next_early(items, resident, ctas_per_sm(device.arch, kK, kV, kDim, kTiles), max_splits);

  const bool next_beside = p.next_early && 5 * std::int64_t{ctas} <= 4 * resident;
  const auto tiles_of = [&](int bytes) {
    const auto of_tiles = std::int64_t{ctas} * (kWarps - 1) * stage_bytes(kK, kV, kDim);
    return bytes > 0 ? static_cast<int>(std::max(bytes / of_tiles, std::int64_t{1})) : 0;
  };
  p.read_on = {tiles_of(next_beside ? kReadOnBesideBytes : kReadOnBytes), tiles_of(read_on_after_bytes(kK, kV))};

  auto* kernel = &decode_kernel<T, kK, kV, kDim, kRows>;
  const auto shared = static_cast<std::size_t>(shared_bytes(device.arch, kK, kV, kDim, kTiles));
  allow_dynamic_shared(reinterpret_cast<const void*>(kernel), shared);
  // It may start while the kernel before it ends, and waits for it before it reads what that one writes.
  launch("decode", kernel, {dim3(ctas), kWarps * 32, shared, stream, device.arch >= 90}, p);
}

}  // namespace pagedkv::cuda::impl::decode
