#pragma once
// Shapes and sizes of the decode kernels. docs/kernels.md derives them. Everything that decides which bits come out
// (tile, split, warps) depends on format and head_dim alone.

#include <cstddef>
#include <cstdint>

#include "pagedkv/core/hd.h"
#include "pagedkv/types.h"

namespace pagedkv::cuda::decode {

/// Warps of a CTA; tile j of a split is worked on by warp j % kWarps.
inline constexpr int kWarps = 4;

PAGEDKV_HD_CONSTEXPR int data_bits(KvType type) {
  return type == KvType::same ? 16 : type == KvType::int8 ? 8 : 4;
}

PAGEDKV_HD_CONSTEXPR int row_bytes(KvType type, int dim) {
  return dim * data_bits(type) / 8;
}

PAGEDKV_HD_CONSTEXPR int param_bytes(KvType type) {
  return type == KvType::same ? 0 : 4;
}

/// Bytes of one token of one head, K and V.
PAGEDKV_HD_CONSTEXPR int token_bytes(KvType k, KvType v, int dim) {
  return row_bytes(k, dim) + row_bytes(v, dim) + param_bytes(k) + param_bytes(v);
}

/// Tokens that a warp takes at a time: 4 to 16 KiB.
PAGEDKV_HD_CONSTEXPR int tile_tokens(KvType k, KvType v, int dim) {
  const int bytes = row_bytes(k, dim) + row_bytes(v, dim);
  return bytes <= 160 ? 64 : bytes <= 320 ? 32 : 16;
}

PAGEDKV_HD_CONSTEXPR int stage_bytes(KvType k, KvType v, int dim) {
  return tile_tokens(k, v, dim) * token_bytes(k, v, dim);
}

/// Tokens of a split: a power of two, about 256 KiB.
PAGEDKV_HD_CONSTEXPR int split_tokens(KvType k, KvType v, int dim) {
  const int tokens = 256 * 1024 / (row_bytes(k, dim) + row_bytes(v, dim));
  return tokens >= 1024 ? 1024 : tokens >= 512 ? 512 : 256;
}

/// Shared memory behind the ring: start of the schedule, maximum and sum of every row and warp, two cursors per warp.
PAGEDKV_HD_CONSTEXPR int extra_shared_bytes(int row_tiles) {
  return 128 + 4 * kWarps + kWarps * 8 * row_tiles * 8 + kWarps * 2 * 96;
}

/// Shared memory that all CTAs of a multiprocessor may take together.
PAGEDKV_HD_CONSTEXPR int shared_bytes_per_sm(int arch) {
  return arch >= 90 ? 224 * 1024 : 160 * 1024;
}

PAGEDKV_HD_CONSTEXPR int stages_that_fit(int arch, int ctas, KvType k, KvType v, int dim, int row_tiles) {
  const int room = shared_bytes_per_sm(arch) / ctas - 1024 - extra_shared_bytes(row_tiles);
  const int n = room / (kWarps * stage_bytes(k, v, dim));
  return n > 4 ? 4 : n;
}

/// CTAs of a multiprocessor: two where three stages still fit.
PAGEDKV_HD_CONSTEXPR int ctas_per_sm(int arch, KvType k, KvType v, int dim, int row_tiles) {
  return stages_that_fit(arch, 2, k, v, dim, row_tiles) >= (arch >= 90 ? 3 : 2) ? 2 : 1;
}

PAGEDKV_HD_CONSTEXPR int stages(int arch, KvType k, KvType v, int dim, int row_tiles) {
  return stages_that_fit(arch, ctas_per_sm(arch, k, v, dim, row_tiles), k, v, dim, row_tiles);
}

PAGEDKV_HD_CONSTEXPR int shared_bytes(int arch, KvType k, KvType v, int dim, int row_tiles) {
  return stages(arch, k, v, dim, row_tiles) * kWarps * stage_bytes(k, v, dim) + extra_shared_bytes(row_tiles);
}

/// Bits of a 16-byte chunk's index in its row that are exchanged so that the same chunk of 8 consecutive rows lies in
/// 8 different bank groups. chunk ^ swizzle(row) is where it goes.
PAGEDKV_HD_CONSTEXPR int swizzle_bits(int row_bytes) {
  const int chunks = row_bytes / 16;
  return chunks % 8 == 0 ? 3 : chunks % 4 == 0 ? 2 : chunks % 2 == 0 ? 1 : 0;
}

PAGEDKV_HD_CONSTEXPR int swizzle(int row_bytes, int row) {
  const int bits = swizzle_bits(row_bytes);
  return ((row & 7) >> (3 - bits)) & ((1 << bits) - 1);
}

}  // namespace pagedkv::cuda::decode
