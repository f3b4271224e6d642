#pragma once
// One attention call, resolved: dimensions, element kinds, and which local tokens a query sees.

#include <cmath>
#include <cstdint>

#include "pagedkv/core/context_parallel.h"
#include "pagedkv/core/mask.h"
#include "pagedkv/ops.h"

namespace pagedkv::cpu::attention {

/// What one stored element is.
enum class Stored : std::uint8_t { f32, f16, bf16, int8, int4 };

constexpr Stored stored_as(DType dtype) {
  return dtype == DType::f32 ? Stored::f32 : dtype == DType::f16 ? Stored::f16 : Stored::bf16;
}
constexpr Stored stored_as(KvType type, DType dtype) {
  return type == KvType::int8 ? Stored::int8 : type == KvType::int4 ? Stored::int4 : stored_as(dtype);
}
constexpr bool is_quantised(Stored s) {
  return s == Stored::int8 || s == Stored::int4;
}
constexpr int stored_bits(Stored s) {
  return s == Stored::f32 ? 32 : s == Stored::int8 ? 8 : s == Stored::int4 ? 4 : 16;
}

/// Half the range of codes.
constexpr float half_range(Stored s) {
  return s == Stored::int8 ? 128.0F : 8.0F;
}

/// Keys are handled in tiles of this many local tokens, [kTile*i, kTile*(i+1)).
inline constexpr std::int32_t kTile = 128;

/// Softmax states are kept per split of this many local tokens, [kSplit*i, kSplit*(i+1)), and folded in split order. A
/// property of the result's bits, so the same for every call.
inline constexpr std::int32_t kSplit = 512;

/// Half-open range of a rank's local tokens.
struct LocalRange {
  std::int32_t first;
  std::int32_t last;
  bool empty() const { return first >= last; }
};

struct Problem {
  const AttentionArgs* args;
  core::Ownership owner;
  Stored q;
  Stored k;
  Stored v;
  std::int32_t head_dim;
  std::int32_t v_offset;
  std::int32_t v_dim;
  std::int32_t group;  ///< query heads of one kv head
  float q_scale;       ///< multiplies q, so that q . k is the score in powers of two, or what tanh takes with a softcap
  float cap;           ///< softcap in powers of two; 0 for none
  bool sinks;

  explicit Problem(const AttentionArgs& a)
      : args(&a),
        owner(a.cp),
        q(stored_as(a.layout.dtype)),
        k(stored_as(a.layout.format.k, a.layout.dtype)),
        v(stored_as(a.layout.format.v, a.layout.dtype)),
        head_dim(a.layout.head_dim),
        v_offset(a.v_offset),
        v_dim(a.v_dim > 0 ? a.v_dim : a.layout.head_dim),
        group(a.q_heads / a.layout.kv_heads),
        sinks(a.sinks != nullptr && a.cp.rank == 0) {
    constexpr double kLog2e = 1.4426950408889634;
    const double scale = a.softmax_scale > 0.0F ? static_cast<double>(a.softmax_scale) : 1.0 / std::sqrt(head_dim);
    const double softcap = static_cast<double>(a.softcap);
    q_scale = static_cast<float>(softcap > 0.0 ? scale / softcap : scale * kLog2e);
    cap = static_cast<float>(softcap * kLog2e);
  }

  std::int32_t q_len(std::int32_t b) const { return args->cu_q[b + 1] - args->cu_q[b]; }
  std::int32_t k_len(std::int32_t b) const { return args->cu_k[b + 1] - args->cu_k[b]; }

  /// Position of new token i of sequence b.
  std::int32_t position(std::int32_t b, std::int32_t i) const { return k_len(b) - q_len(b) + i; }

  /// Local tokens that new token i of sequence b sees; with a tree mask, of those among them that hidden() leaves.
  LocalRange visible(std::int32_t b, std::int32_t i) const {
    if (args->finished != nullptr && args->finished[b] != 0) return {0, 0};
    const std::int32_t length = k_len(b);
    const core::KeyRange keys = core::visible_keys(position(b, i), length, args->causal, args->window);
    return {owner.count(keys.first), owner.count(args->tree_mask != nullptr ? length : keys.last)};
  }

  /// Bit j: new token i of sequence b does not see new token j.
  std::uint32_t hidden(std::int32_t b, std::int32_t i) const {
    return args->tree_mask != nullptr ? ~args->tree_mask[args->cu_q[b] + i] : 0;
  }

  /// q_scale for new token i of sequence b.
  float query_scale(std::int32_t b, std::int32_t i) const {
    const std::int32_t n = args->log_n_length;
    const std::int32_t t = position(b, i);
    return n > 0 && t > n ? q_scale * static_cast<float>(std::log(t) / std::log(n)) : q_scale;
  }
};

/// The same query heads of a run of new tokens of one sequence, over a run of splits: what one thread does in one go.
struct Item {
  std::int32_t batch;
  std::int32_t kv_head;
  std::int32_t token;  ///< first new token
  std::int32_t tokens;
  std::int32_t head;  ///< first query head within the group
  std::int32_t heads;
  std::int32_t split;  ///< first split
  std::int32_t splits;
  std::int64_t
      partial;  ///< index of the first partial row (row-major [split][row]), or -1 if the item is all of its rows

  std::int32_t rows() const { return tokens * heads; }
};

}  // namespace pagedkv::cpu::attention
