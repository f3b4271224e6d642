#include "common/args_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check.h"
#include "common/enum_check.h"
#include "common/format.h"
#include "common/layout_check.h"

namespace pagedkv::common {
namespace {

constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();

/// Alignment of q, k, v, o and of bias rows: the widest vector access of either backend.
constexpr std::uintptr_t kDataAlignment = 16;

void check_backend(std::string_view owner, std::string_view field, DType dtype, Backend backend) {
  if (backend == Backend::cuda && dtype == DType::f32) {
    reject(owner, field, name(dtype), "f16 or bf16; f32 exists on the CPU only");
  }
}

void check_table(std::string_view owner, const BlockTable& t, const BlockLayout& layout) {
  if ((t.pointers == nullptr) == (t.indices == nullptr)) {
    reject(owner, "table.pointers", static_cast<const void*>(t.pointers),
           t.pointers == nullptr ? "exactly one of table.pointers and table.indices; both are null"
                                 : "exactly one of table.pointers and table.indices; both are set");
  }
  check_optional_pointer(owner, "table.pointers", t.pointers, alignof(char*));
  check_optional_pointer(owner, "table.indices", t.indices, alignof(std::int32_t));
  check_optional_pointer(owner, "table.cu_blocks", t.cu_blocks, alignof(std::int32_t));
  check_at_least(owner, "table.row_stride", t.row_stride, 0);
  if (t.indices != nullptr) {
    check_pointer(owner, "table.slab", t.slab, kDataAlignment);
    check_range(owner, "table.slab_blocks", t.slab_blocks, 1,
                std::min(kInt32Max, std::numeric_limits<std::int64_t>::max() / layout.block_bytes));
  }
}

void check_strides(std::string_view owner, std::string_view field, const TokenStrides& s) {
  const auto check = [&](std::string_view part, std::int64_t value) {
    if (value % 8 != 0) reject(owner, formatted("{}.{}", field, part), value, "a multiple of 8 elements");
  };
  check("batch", s.batch);
  check("start", s.start);
  check("token", s.token);
  check("head", s.head);
}

/// layout, layer, cp, and with a batch the table: what all three cache operations have.
template <class Args>
void check_cache(std::string_view owner, const Args& a, Backend backend) {
  check_layout(formatted("{}.layout", owner), a.layout);
  check_backend(owner, "layout.dtype", a.layout.dtype, backend);
  check_range(owner, "layer", a.layer, 0, a.layout.layers - 1);
  check_context_parallel(owner, a.cp);
  check_range(owner, "batch", a.batch, 0, kMaxBatch);
  if (a.batch > 0) check_table(owner, a.table, a.layout);
}

void check_cu(std::string_view owner, std::string_view field, const std::int32_t* cu) {
  check_pointer(owner, field, cu, alignof(std::int32_t));
}

}  // namespace

void check_context_parallel(std::string_view owner, const ContextParallel& cp) {
  check_range(owner, "cp.size", cp.size, 1, 65536);
  check_range(owner, "cp.rank", cp.rank, 0, cp.size - 1);
  check_range(owner, "cp.interleave", cp.interleave, 1, std::int64_t{1} << 30);
}

void check_rope_table(std::string_view owner, const core::RopeTable& r, std::int32_t head_dim) {
  check_enum(owner, "pairs", r.pairs);
  check_enum(owner, "mrope", r.mrope);
  check_range(owner, "dim", r.dim, 0, std::min(head_dim, 2 * core::kMaxRopePairs));
  if (r.dim == 0) return;
  check_multiple(owner, "dim", r.dim, r.pairs == RopePairs::interleaved ? 8 : 16);
  if (!std::isfinite(r.attention_factor)) reject(owner, "attention_factor", r.attention_factor, "a finite number");
  check_optional_pointer(owner, "base", r.base, alignof(float));
  if (r.mrope == MropeMode::none) return;

  constexpr const char* kSection[3] = {"mrope_section[0]", "mrope_section[1]", "mrope_section[2]"};
  const std::int32_t pairs = r.dim / 2;
  for (int i = 0; i < 3; ++i) check_range(owner, kSection[i], r.mrope_section[i], 0, pairs);
  if (r.mrope == MropeMode::chunked) {
    const std::int32_t sum = r.mrope_section[0] + r.mrope_section[1] + r.mrope_section[2];
    if (sum != pairs) {
      reject(owner, "mrope_section", formatted("a sum of {}", sum), formatted("a sum of {}, dim / 2", pairs));
    }
  }
  constexpr auto kAlign = alignof(std::int32_t);
  check_optional_pointer(owner, "mrope_length", r.mrope_length, kAlign);
  check_optional_pointer(owner, "mrope_delta", r.mrope_delta, kAlign);
  if (r.mrope_length != nullptr) {
    check_pointer(owner, "mrope_offsets", r.mrope_offsets, kAlign);
    check_pointer(owner, "mrope_position_ids", r.mrope_position_ids, kAlign);
  }
}

void check_args(const WriteKvArgs& a, Backend backend) {
  constexpr const char* kOwner = "WriteKvArgs";
  check_cache(kOwner, a, backend);
  check_strides(kOwner, "strides", a.strides);
  check_rope_table("WriteKvArgs.rope", a.rope, a.layout.head_dim);
  check_optional_pointer(kOwner, "k_bias", a.k_bias, kDataAlignment);
  if (!a.layout.shared_kv) check_optional_pointer(kOwner, "v_bias", a.v_bias, kDataAlignment);
  check_optional_pointer(kOwner, "readonly_blocks", a.readonly_blocks, alignof(std::int32_t));
  if (backend == Backend::cuda) check_at_least(kOwner, "max_total_q", a.max_total_q, 0);
  if (a.batch == 0) return;
  check_cu(kOwner, "cu_q", a.cu_q);
  check_cu(kOwner, "cu_k", a.cu_k);
  check_pointer(kOwner, "k", a.k, kDataAlignment);
  if (!a.layout.shared_kv) check_pointer(kOwner, "v", a.v, kDataAlignment);
}

void check_args(const FlattenKvArgs& a, Backend backend) {
  constexpr const char* kOwner = "FlattenKvArgs";
  check_cache(kOwner, a, backend);
  check_strides(kOwner, "strides", a.strides);
  check_rope_table("FlattenKvArgs.rope", a.rope, a.layout.head_dim);
  if (backend == Backend::cuda) check_at_least(kOwner, "max_total_k", a.max_total_k, 0);
  if (a.batch == 0) return;
  check_cu(kOwner, "cu_k", a.cu_k);
  check_pointer(kOwner, "k", a.k, kDataAlignment);
  if (a.layout.shared_kv) {
    check_optional_pointer(kOwner, "v", a.v, kDataAlignment);
  } else {
    check_pointer(kOwner, "v", a.v, kDataAlignment);
  }
}

namespace {

/// What decode() does besides attention.
void check_fused(std::string_view owner, const AttentionArgs& a) {
  const FuseWrite& w = a.fuse_write;
  if (w.k != nullptr) {
    check_pointer(owner, "fuse_write.k", w.k, kDataAlignment);
    check_strides(owner, "fuse_write.strides", w.strides);
    check_optional_pointer(owner, "fuse_write.k_bias", w.k_bias, kDataAlignment);
    if (!a.layout.shared_kv) {
      check_optional_pointer(owner, "fuse_write.v_bias", w.v_bias, kDataAlignment);
      if (a.batch > 0) check_pointer(owner, "fuse_write.v", w.v, kDataAlignment);
    }
    check_optional_pointer(owner, "fuse_write.readonly_blocks", w.readonly_blocks, alignof(std::int32_t));
  } else if (w.v != nullptr) {
    reject(owner, "fuse_write.v", w.v, "null without fuse_write.k");
  }
  check_optional_pointer(owner, "q_bias", a.q_bias, kDataAlignment);
  if (w.k != nullptr || a.rotate_q) check_rope_table(formatted("{}.rope", owner), a.rope, a.layout.head_dim);
}

}  // namespace

void check_args(const AttentionArgs& a, Backend backend, bool decode) {
  constexpr const char* kOwner = "AttentionArgs";
  check_cache(kOwner, a, backend);
  check_range(kOwner, "q_heads", a.q_heads, 1, kMaxHeads);
  if (a.q_heads % a.layout.kv_heads != 0) {
    reject(kOwner, "q_heads", a.q_heads, formatted("a multiple of layout.kv_heads = {}", a.layout.kv_heads));
  }
  check_at_least(kOwner, "max_total_q", a.max_total_q, 0);
  check_at_least(kOwner, "max_q_len", a.max_q_len, 0);
  check_at_least(kOwner, "max_k_len", a.max_k_len, 0);
  check_strides(kOwner, "q_strides", a.q_strides);
  check_strides(kOwner, "o_strides", a.o_strides);
  if (!std::isfinite(a.softmax_scale) || a.softmax_scale < 0.0F) {
    reject(kOwner, "softmax_scale", a.softmax_scale, "a finite number above 0, or 0 for 1 / sqrt(head_dim)");
  }
  if (!std::isfinite(a.softcap) || a.softcap < 0.0F) {
    reject(kOwner, "softcap", a.softcap, "a finite number above 0, or 0 for none");
  }
  check_at_least(kOwner, "window", a.window, 0);
  if (!a.causal && a.window != 0) reject(kOwner, "window", a.window, "0 when causal is false");
  if (!a.layout.shared_kv) {
    if (a.v_dim != 0) reject(kOwner, "v_dim", a.v_dim, "0 without layout.shared_kv");
    if (a.v_offset != 0) reject(kOwner, "v_offset", a.v_offset, "0 without layout.shared_kv");
  } else {
    check_range(kOwner, "v_dim", a.v_dim, 0, a.layout.head_dim);
    check_multiple(kOwner, "v_dim", a.v_dim, 16);
    check_range(kOwner, "v_offset", a.v_offset, 0, a.v_dim == 0 ? 0 : a.layout.head_dim - a.v_dim);
    check_multiple(kOwner, "v_offset", a.v_offset, 16);
  }
  check_optional_pointer(kOwner, "lse", a.lse, alignof(float));
  check_optional_pointer(kOwner, "sinks", a.sinks, alignof(float));
  check_optional_pointer(kOwner, "tree_mask", a.tree_mask, alignof(std::uint32_t));
  check_at_least(kOwner, "log_n_length", a.log_n_length, 0);
  if (a.log_n_length == 1) reject(kOwner, "log_n_length", 1, "0 for none, or at least 2");
  if (decode) {
    check_fused(kOwner, a);
  } else {
    if (a.finished != nullptr) reject(kOwner, "finished", a.finished, "null for prefill");
    if (a.tree_mask != nullptr) reject(kOwner, "tree_mask", a.tree_mask, "null for prefill");
    if (a.log_n_length != 0) reject(kOwner, "log_n_length", a.log_n_length, "0 for prefill");
    if (a.fuse_write.k != nullptr) reject(kOwner, "fuse_write.k", a.fuse_write.k, "null for prefill");
    if (a.q_bias != nullptr) reject(kOwner, "q_bias", a.q_bias, "null for prefill");
    if (a.rotate_q) reject(kOwner, "rotate_q", "true", "false for prefill");
    if (a.read_ahead) reject(kOwner, "read_ahead", "true", "false for prefill");
  }
  if (a.batch == 0) return;
  check_cu(kOwner, "cu_q", a.cu_q);
  check_cu(kOwner, "cu_k", a.cu_k);
  check_pointer(kOwner, "q", a.q, kDataAlignment);
  check_pointer(kOwner, "o", a.o, kDataAlignment);
}

void check_args(const ApplyRopeArgs& a, Backend backend) {
  constexpr const char* kOwner = "ApplyRopeArgs";
  check_enum(kOwner, "dtype", a.dtype);
  check_backend(kOwner, "dtype", a.dtype, backend);
  check_range(kOwner, "heads", a.heads, 1, kMaxHeads);
  check_range(kOwner, "head_dim", a.head_dim, 16, 1024);
  check_multiple(kOwner, "head_dim", a.head_dim, 16);
  check_range(kOwner, "batch", a.batch, 0, kMaxBatch);
  check_strides(kOwner, "x_strides", a.x_strides);
  check_strides(kOwner, "y_strides", a.y_strides);
  check_optional_pointer(kOwner, "bias", a.bias, kDataAlignment);
  check_rope_table("ApplyRopeArgs.rope", a.rope, a.head_dim);
  if (backend == Backend::cuda) check_at_least(kOwner, "max_total_q", a.max_total_q, 0);
  if (a.batch == 0) return;
  check_cu(kOwner, "cu_q", a.cu_q);
  check_cu(kOwner, "cu_k", a.cu_k);
  check_pointer(kOwner, "x", a.x, kDataAlignment);
  check_pointer(kOwner, "y", a.y, kDataAlignment);
}

void check_args(const MergePartialsArgs& a, Backend) {
  constexpr const char* kOwner = "MergePartialsArgs";
  check_enum(kOwner, "dtype", a.dtype);
  check_range(kOwner, "parts", a.parts, 1, 65536);
  check_range(kOwner, "rows", a.rows, 0, std::int64_t{1} << 40);
  check_range(kOwner, "dim", a.dim, 8, 1024);
  check_multiple(kOwner, "dim", a.dim, 8);
  check_optional_pointer(kOwner, "lse", a.lse, alignof(float));
  if (a.rows == 0) return;
  check_pointer(kOwner, "o_parts", a.o_parts, kDataAlignment);
  check_pointer(kOwner, "lse_parts", a.lse_parts, alignof(float));
  check_pointer(kOwner, "o", a.o, kDataAlignment);
}

}  // namespace pagedkv::common
