#pragma once
// Where the rows and parameters of one tile of keys lie.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/attention/problem.h"

namespace pagedkv::cpu::attention {

/// One tile of one sequence and kv head. Addresses of all kTile tokens are readable; those outside [first, last) stand
/// in for tokens that nobody in the item sees.
struct Tile {
  std::int32_t base;   ///< local token that the tile starts at
  std::int32_t first;  ///< tokens within the tile
  std::int32_t last;
  const char* k[kTile];
  const char* v[kTile];  ///< at v_offset
};

/// Parameters {scale, zero} of a tile's rows as stored, and after conversion.
struct TileParams {
  const char* stored;                ///< in the cache, or `copy`
  alignas(64) char copy[kTile * 8];  ///< of pieces of several blocks; zero outside [first, last)
  alignas(64) float scale[kTile];
  alignas(64) float zero[kTile];
};

/// One bit for each token of a tile.
struct TileBits {
  std::uint32_t words[kTile / 32];

  bool test(std::int32_t t) const { return (words[t / 32] >> (t % 32) & 1U) != 0; }
};

/// The tokens of `range`, in tokens of the tile, that new token i of its sequence does not see. Returns how many.
inline std::int32_t hidden_tokens(const Problem& p, std::int32_t batch, std::int32_t i, std::int32_t base,
                                  LocalRange range, TileBits& bits) {
  bits = {};
  std::int32_t count = 0;
  const std::uint32_t hidden = p.hidden(batch, i);
  if (hidden == 0) return count;
  for (std::int32_t j = 0; j < p.q_len(batch); ++j) {
    const std::int32_t t = p.owner.local(p.position(batch, j)) - base;
    if ((hidden >> j & 1U) == 0 || t < range.first || t >= range.last) continue;
    bits.words[t / 32] |= 1U << (t % 32);
    ++count;
  }
  return count;
}

/// Address of logical block j of sequence b.
inline const char* block_address(const BlockTable& t, const BlockLayout& layout, std::int32_t b, std::int32_t j) {
  const std::int64_t entry = (t.cu_blocks != nullptr ? t.cu_blocks[b] : std::int64_t{b} * t.row_stride) + j;
  return t.pointers != nullptr ? t.pointers[entry] : t.slab + t.indices[entry] * layout.block_bytes;
}

/// Calls f(token, count, address of the block, index in the block) for the runs of local tokens [begin, end) that lie
/// in one block each.
template <class F>
void for_each_run(const Problem& p, std::int32_t batch, std::int32_t begin, std::int32_t end, F f) {
  const BlockLayout& l = p.args->layout;
  std::int32_t block = begin / l.block_len;
  for (std::int32_t t = begin; t < end; ++block) {
    const std::int32_t in_block = t - block * l.block_len;
    const std::int32_t n = std::min(end - t, l.block_len - in_block);
    f(t, n, block_address(p.args->table, l, batch, block), in_block);
    t += n;
  }
}

/// Finds the rows of the local tokens [begin, end), which lie in one tile; begin < end.
inline void locate(const Problem& p, std::int32_t batch, std::int32_t kv_head, std::int32_t begin, std::int32_t end,
                   Tile& tile) {
  const BlockLayout& l = p.args->layout;
  const std::int32_t layer = p.args->layer;
  tile.base = begin / kTile * kTile;
  tile.first = begin - tile.base;
  tile.last = end - tile.base;
  const std::int64_t v_shift = std::int64_t{p.v_offset} * stored_bits(p.v) / 8;
  for_each_run(p, batch, begin, end, [&](std::int32_t t, std::int32_t n, const char* address, std::int32_t in_block) {
    const char* k = address + l.k_data(layer, kv_head, in_block);
    const char* v = address + l.v_data(layer, kv_head, in_block) + v_shift;
    for (std::int32_t i = t - tile.base; i < t - tile.base + n; ++i) {
      tile.k[i] = k;
      tile.v[i] = v;
      k += l.k_row_bytes;
      v += l.v_row_bytes;
    }
  });
  const auto stand_in = [&](std::int32_t from, std::int32_t to) {
    std::fill(tile.k + from, tile.k + to, tile.k[tile.first]);
    std::fill(tile.v + from, tile.v + to, tile.v[tile.first]);
  };
  stand_in(0, tile.first);
  stand_in(tile.last, kTile);
}

/// Calls f(address, bytes, offset from the tile's first parameter) for the runs of parameters of one side of a tile.
template <class F>
void for_each_param_run(const Problem& p, std::int32_t batch, std::int32_t kv_head, const Tile& tile, bool value, F f) {
  const BlockLayout& l = p.args->layout;
  const std::int32_t layer = p.args->layer;
  const std::int32_t bytes = value ? l.v_param_bytes : l.k_param_bytes;
  for_each_run(p, batch, tile.base + tile.first, tile.base + tile.last,
               [&](std::int32_t t, std::int32_t n, const char* address, std::int32_t in_block) {
                 const std::int64_t offset =
                     value ? l.v_param(layer, kv_head, in_block) : l.k_param(layer, kv_head, in_block);
                 f(address + offset, static_cast<std::size_t>(n) * static_cast<std::size_t>(bytes),
                   static_cast<std::size_t>(t - tile.base) * static_cast<std::size_t>(bytes));
               });
}

/// Finds the stored parameters of one side of a tile, or puts them together.
inline void gather_params(const Problem& p, std::int32_t batch, std::int32_t kv_head, const Tile& tile, bool value,
                          TileParams& params) {
  const BlockLayout& l = p.args->layout;
  const std::size_t whole = std::size_t{kTile} * static_cast<std::size_t>(value ? l.v_param_bytes : l.k_param_bytes);
  params.stored = params.copy;
  if (tile.first > 0 || tile.last < kTile) std::memset(params.copy, 0, whole);
  for_each_param_run(p, batch, kv_head, tile, value, [&](const char* from, std::size_t bytes, std::size_t at) {
    if (bytes == whole) {
      params.stored = from;
    } else {
      std::memcpy(params.copy + at, from, bytes);
    }
  });
}

}  // namespace pagedkv::cpu::attention
