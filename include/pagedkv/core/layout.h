#pragma once
// Byte offsets inside a block. docs/layout.md has the picture; nothing else in the library computes an offset.

#include <cstdint>

#include "pagedkv/core/hd.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Where every byte of one block lies. A plain value: made by make_layout() (cache_config.h), which validates, and then
/// passed by value to every operation, on host and device.
///
/// A block holds `block_len` tokens of all layers. Its layers follow each other, `layer_bytes` each; inside one layer
/// (`turbomind`): all data [kv_head][K,V][token][head_dim], then all parameters [kv_head][K,V][token]{scale, zero} of
/// type T. A side stored as `same` has no parameters. With `shared_kv` (MLA) there is one row per token that is both
/// key and value.
struct BlockLayout {
  DType dtype = DType::f16;
  KvFormat format;
  LayoutKind kind = LayoutKind::turbomind;
  bool shared_kv = false;
  std::int32_t layers = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t block_len = 0;

  std::int32_t k_row_bytes = 0;  ///< data of one token of one head
  std::int32_t v_row_bytes = 0;
  std::int32_t k_param_bytes = 0;  ///< {scale, zero} of one token of one head, 0 if stored as `same`
  std::int32_t v_param_bytes = 0;
  std::int64_t head_data_bytes = 0;   ///< data of one head: K then V
  std::int64_t head_param_bytes = 0;  ///< parameters of one head: K then V
  std::int64_t param_offset = 0;      ///< of the first parameter, from the start of a layer
  std::int64_t layer_bytes = 0;
  std::int64_t block_bytes = 0;

  PAGEDKV_HD_CONSTEXPR std::int64_t layer_offset(std::int32_t layer) const { return layer * layer_bytes; }

  /// Byte offsets from the start of the block.
  PAGEDKV_HD_CONSTEXPR std::int64_t k_data(std::int32_t layer, std::int32_t head, std::int32_t token) const {
    return layer_offset(layer) + head * head_data_bytes + std::int64_t{token} * k_row_bytes;
  }
  PAGEDKV_HD_CONSTEXPR std::int64_t v_data(std::int32_t layer, std::int32_t head, std::int32_t token) const {
    return layer_offset(layer) + head * head_data_bytes + v_data_shift() + std::int64_t{token} * v_row_bytes;
  }
  PAGEDKV_HD_CONSTEXPR std::int64_t k_param(std::int32_t layer, std::int32_t head, std::int32_t token) const {
    return layer_offset(layer) + param_offset + head * head_param_bytes + std::int64_t{token} * k_param_bytes;
  }
  PAGEDKV_HD_CONSTEXPR std::int64_t v_param(std::int32_t layer, std::int32_t head, std::int32_t token) const {
    return layer_offset(layer) + param_offset + head * head_param_bytes + v_param_shift() +
           std::int64_t{token} * v_param_bytes;
  }

  /// Distance from a head's K region to its V region.
  PAGEDKV_HD_CONSTEXPR std::int64_t v_data_shift() const {
    return shared_kv ? 0 : std::int64_t{block_len} * k_row_bytes;
  }
  PAGEDKV_HD_CONSTEXPR std::int64_t v_param_shift() const {
    return shared_kv ? 0 : std::int64_t{block_len} * k_param_bytes;
  }

  friend constexpr bool operator==(const BlockLayout&, const BlockLayout&) = default;
};

namespace core {

/// The arithmetic behind make_layout(), without its validation.
PAGEDKV_HD_CONSTEXPR BlockLayout compute_layout(DType dtype, KvFormat format, std::int32_t layers,
                                                std::int32_t kv_heads, std::int32_t head_dim, std::int32_t block_len,
                                                bool shared_kv) {
  BlockLayout l;
  l.dtype = dtype;
  l.format = format;
  l.shared_kv = shared_kv;
  l.layers = layers;
  l.kv_heads = kv_heads;
  l.head_dim = head_dim;
  l.block_len = block_len;
  const std::int32_t k_bits = format.k == KvType::int8   ? 8
                              : format.k == KvType::int4 ? 4
                              : dtype == DType::f32      ? 32
                                                         : 16;
  const std::int32_t v_bits = format.v == KvType::int8   ? 8
                              : format.v == KvType::int4 ? 4
                              : dtype == DType::f32      ? 32
                                                         : 16;
  const std::int32_t pair_bytes = dtype == DType::f32 ? 8 : 4;
  l.k_row_bytes = static_cast<std::int32_t>(std::int64_t{head_dim} * k_bits / 8);
  l.v_row_bytes = static_cast<std::int32_t>(std::int64_t{head_dim} * v_bits / 8);
  l.k_param_bytes = format.k == KvType::same ? 0 : pair_bytes;
  l.v_param_bytes = format.v == KvType::same ? 0 : pair_bytes;
  l.head_data_bytes = std::int64_t{block_len} * (l.k_row_bytes + (shared_kv ? 0 : l.v_row_bytes));
  l.head_param_bytes = std::int64_t{block_len} * (l.k_param_bytes + (shared_kv ? 0 : l.v_param_bytes));
  l.param_offset = kv_heads * l.head_data_bytes;
  l.layer_bytes = kv_heads * (l.head_data_bytes + l.head_param_bytes);
  l.block_bytes = layers * l.layer_bytes;
  return l;
}

}  // namespace core
}  // namespace pagedkv
