#pragma once
// Where the rows and parameters of one tile of keys lie.

#include <algorithm>
#include <cstring>

#include "cpu/attention/problem.h"

namespace pagedkv::cpu::attention {

/// One tile of one sequence and kv head. Addresses of all kTile tokens are readable; those outside [first, last) stand
/// in for tokens that nobody in the item sees.
struct Tile {
  std::int32_t first;  ///< tokens within the tile
  std::int32_t last;
  const char* k[kTile];
  const char* v[kTile];  ///< at v_offset
  // {scale, zero} as stored, zero outside [first, last); scale and zero after conversion.
  alignas(64) char k_raw[kTile * 8];
  alignas(64) char v_raw[kTile * 8];
  alignas(64) float k_scale[kTile];
  alignas(64) float k_zero[kTile];
  alignas(64) float v_scale[kTile];
  alignas(64) float v_zero[kTile];
};

/// Address of logical block j of sequence b.
inline const char* block_address(const BlockTable& t, const BlockLayout& layout, std::int32_t b, std::int32_t j) {
  const std::int64_t entry = (t.cu_blocks != nullptr ? t.cu_blocks[b] : std::int64_t{b} * t.row_stride) + j;
  return t.pointers != nullptr ? t.pointers[entry] : t.slab + t.indices[entry] * layout.block_bytes;
}

/// Fills in addresses and raw parameters for the local tokens [begin, end), which lie in one tile; begin < end.
inline void gather(const Problem& p, std::int32_t batch, std::int32_t kv_head, std::int32_t begin, std::int32_t end,
                   Tile& tile) {
  const AttentionArgs& a = *p.args;
  const BlockLayout& l = a.layout;
  const std::int32_t base = begin / kTile * kTile;
  tile.first = begin - base;
  tile.last = end - base;
  if (l.k_param_bytes > 0) std::memset(tile.k_raw, 0, sizeof(tile.k_raw));
  if (l.v_param_bytes > 0) std::memset(tile.v_raw, 0, sizeof(tile.v_raw));
  const std::int64_t v_shift = std::int64_t{p.v_offset} * stored_bits(p.v) / 8;
  for (std::int32_t t = begin; t < end;) {
    const std::int32_t block = t / l.block_len;
    const std::int32_t in_block = t - block * l.block_len;
    const std::int32_t n = std::min(end - t, l.block_len - in_block);
    const char* address = block_address(a.table, l, batch, block);
    const char* k = address + l.k_data(a.layer, kv_head, in_block);
    const char* v = address + l.v_data(a.layer, kv_head, in_block) + v_shift;
    const std::int32_t at = t - base;
    for (std::int32_t i = 0; i < n; ++i) {
      tile.k[at + i] = k + std::int64_t{i} * l.k_row_bytes;
      tile.v[at + i] = v + std::int64_t{i} * l.v_row_bytes;
    }
    const auto copy_params = [&](char* to, std::int64_t from, std::int32_t bytes) {
      std::memcpy(to + std::int64_t{at} * bytes, address + from,
                  static_cast<std::size_t>(n) * static_cast<std::size_t>(bytes));
    };
    if (l.k_param_bytes > 0) copy_params(tile.k_raw, l.k_param(a.layer, kv_head, in_block), l.k_param_bytes);
    if (l.v_param_bytes > 0) copy_params(tile.v_raw, l.v_param(a.layer, kv_head, in_block), l.v_param_bytes);
    t += n;
  }
  for (std::int32_t i = 0; i < tile.first; ++i) {
    tile.k[i] = tile.k[tile.first];
    tile.v[i] = tile.v[tile.first];
  }
  for (std::int32_t i = tile.last; i < kTile; ++i) {
    tile.k[i] = tile.k[tile.first];
    tile.v[i] = tile.v[tile.first];
  }
}

}  // namespace pagedkv::cpu::attention
