#pragma once
// A validated description of a cache, and the byte layout that follows from it.

#include <cstdint>
#include <string>

#include "pagedkv/core/layout.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// What a cache holds. Plain data; make_layout() validates it.
struct CacheConfig {
  std::int32_t layers = 1;      ///< 1 .. 65536
  std::int32_t kv_heads = 1;    ///< KV heads on this rank, 1 .. 65536
  std::int32_t head_dim = 128;  ///< multiple of 16, 16 .. 1024
  std::int32_t block_len = 64;  ///< tokens of one block, 1 .. 65536
  DType dtype = DType::f16;     ///< T; f32 on the CPU only
  KvFormat format = {};         ///< stored types of keys and values
  LayoutKind layout = LayoutKind::turbomind;
  bool shared_kv = false;  ///< MLA: one row per token is both key and value; needs format.k == format.v
};

/// Byte layout of the blocks of a cache. Every data and parameter region of a (layer, head) starts 16-byte aligned.
/// @throws Error (invalid_argument) naming the field that cannot be held and why.
BlockLayout make_layout(const CacheConfig& config);

/// Format of TurboMind's `quant_policy`: 0 is (same, same), 8 is (int8, int8), 4 is (int4, int4).
/// @throws Error (invalid_argument) for any other value.
KvFormat format_from_quant_policy(int quant_policy);

/// The byte table of a layout, one region per line, for people.
std::string to_string(const BlockLayout& layout);

}  // namespace pagedkv
