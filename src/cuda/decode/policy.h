#pragma once
// Shapes and sizes of the decode kernels. docs/decode.md derives them. Everything that decides which bits come out
// (tile, split, warps, runs of splits) depends on format, head_dim, the sequence's own length and, where the format has
// long_end(), the number of KV heads.

#include <cstddef>
#include <cstdint>

#include "pagedkv/core/hd.h"
#include "pagedkv/types.h"

namespace pagedkv::cuda::impl::decode {

/// Most new tokens of a sequence.
inline constexpr int kMostQueries = 16;

/// Warps of a CTA; tile j of a split is worked on by warp j % kWarps.
inline constexpr int kWarps = 4;

// The architecture that this code is being compiled for.
#if defined(__CUDA_ARCH__)
inline constexpr int kTargetArch = __CUDA_ARCH__ / 10;
#else
inline constexpr int kTargetArch = 90;
#endif

PAGEDKV_HD_CONSTEXPR int data_bits(KvType type) {
  return type == KvType::same ? 16 : type == KvType::int8 ? 8 : 4;
}

PAGEDKV_HD_CONSTEXPR int row_bytes(KvType type, int dim) {
  return dim * data_bits(type) / 8;
}

PAGEDKV_HD_CONSTEXPR int param_bytes(KvType type) {
  return type == KvType::same ? 0 : 4;
}

/// MLA: rows of 64 rotated and 512 latent channels that are key and value both; 512 of them are the value.
inline constexpr int kMlaDim = 576;
inline constexpr int kMlaValueDim = 512;

PAGEDKV_HD_CONSTEXPR bool shares_rows(int dim) {
  return dim == kMlaDim;
}

/// Channels of a result row.
PAGEDKV_HD_CONSTEXPR int value_dim(int dim) {
  return shares_rows(dim) ? kMlaValueDim : dim;
}

/// Codes or values of one token of one head, K and V.
PAGEDKV_HD_CONSTEXPR int data_bytes(KvType k, KvType v, int dim) {
  return row_bytes(k, dim) + (shares_rows(dim) ? 0 : row_bytes(v, dim));
}

/// The same with the parameters.
PAGEDKV_HD_CONSTEXPR int token_bytes(KvType k, KvType v, int dim) {
  return data_bytes(k, v, dim) + param_bytes(k) + (shares_rows(dim) ? 0 : param_bytes(v));
}

/// Columns of 8 queries that a product has for so many rows (a row is a query of a head).
PAGEDKV_HD_CONSTEXPR int row_tiles(int rows) {
  return rows > 8 ? 2 : 1;
}

/// Tokens that a warp takes at a time: 4 to 19 KiB, and at least the 8 rows of float32 that an item's result takes.
PAGEDKV_HD_CONSTEXPR int tile_tokens(KvType k, KvType v, int dim) {
  const int bytes = data_bytes(k, v, dim);
  int tokens = bytes <= 160 ? 64 : bytes <= 320 ? 32 : 16;
  while (tokens * bytes < 8 * value_dim(dim) * 4) tokens *= 2;
  return tokens;
}

PAGEDKV_HD_CONSTEXPR int stage_bytes(KvType k, KvType v, int dim) {
  return tile_tokens(k, v, dim) * token_bytes(k, v, dim);
}

/// Whether there are kernels for up to 4 rows, in which two halves of a tile's tokens share the 8 columns of scores.
PAGEDKV_HD_CONSTEXPR bool packs_rows(KvType k, KvType v, int dim) {
  return k == v && k != KvType::same && (dim == 64 || dim == 128) && tile_tokens(k, v, dim) >= 32;
}

/// log2 of the tokens of a split. Each end of a split costs about as much as item_bytes(); short ones would give a
/// short sequence more CTAs. A warp's tiles of a split must not touch more than 32 blocks, so that each lane holds one
/// table entry. MLA has one KV head and kernels that take several times as long per token: 8 sequences of 8192 tokens
/// and 16 heads would be 64 items of 2048 tokens.
PAGEDKV_HD_CONSTEXPR int split_shift(int dim) {
  return shares_rows(dim) ? 10 : 11;
}

/// Sequences of at most this many tokens have shorter splits: log2 of their tokens.
inline constexpr int kShortLength = 1024;
PAGEDKV_HD_CONSTEXPR int short_split_shift(KvType k, KvType v, int dim) {
  return data_bytes(k, v, dim) > 320 ? 7 : 8;
}

/// Quantised rows of head_dim 64: CTAs of a large batch get only two or three items each.
PAGEDKV_HD_CONSTEXPR bool has_small_rows(KvType k, KvType v, int dim) {
  return dim <= 64 && data_bytes(k, v, dim) <= 128;
}

/// Sequences of more than this many tokens, and of at most long_end(), have splits of kLongSplit tokens.
inline constexpr int kLongLength = 65536;
inline constexpr int kLongSplit = 1280;
/// Most work items of a single sequence with such splits and one tile of rows: a bit under the 396 CTAs that find room
/// on the device they were measured on. More would give some CTAs two items.
inline constexpr int kMostLongItems = 384;

/// With small rows and few KV heads the splits of a single sequence are fewer than the CTAs that find room, and the
/// time is that of a warp's tiles one after the other: 131072 tokens of 3 heads are 309 splits of 1280 and 192 of 2048,
/// for 396 CTAs. Without a length that has such splits it is kLongLength.
PAGEDKV_HD_CONSTEXPR int long_end(KvType k, KvType v, int dim, int kv_heads) {
  if (!has_small_rows(k, v, dim) || k != v || kv_heads > 4) return kLongLength;
  const int end = kMostLongItems / kv_heads * kLongSplit;
  return end > kLongLength ? end : kLongLength;
}

/// Tokens of a split of a sequence of `k_len` tokens. make_sequence() decides the same.
PAGEDKV_HD_CONSTEXPR int split_tokens(KvType k, KvType v, int dim, int kv_heads, int k_len) {
  if (k_len <= kShortLength) return 1 << short_split_shift(k, v, dim);
  return k_len > kLongLength && k_len <= long_end(k, v, dim, kv_heads) ? kLongSplit : 1 << split_shift(dim);
}

/// Most splits of a sequence of at most `k_len` tokens: the most of each kind of splits.
PAGEDKV_HD_CONSTEXPR int max_splits(KvType k, KvType v, int dim, int kv_heads, int k_len) {
  const int end = long_end(k, v, dim, kv_heads);
  const int lengths[] = {k_len, k_len < end ? k_len : end, k_len < kShortLength ? k_len : kShortLength};
  int most = 1;
  for (const int length : lengths) {
    const int splits = length > 0 ? (length - 1) / split_tokens(k, v, dim, kv_heads, length) + 1 : 1;
    if (splits > most) most = splits;
  }
  return most;
}

/// What the end of a work item, and a change of queries, cost a CTA, as the bytes it could have read meanwhile. Found
/// by trying; short rows need more instructions per byte, and so more for these as well. With small rows a dear change
/// of queries would give some CTAs one item more than their share.
PAGEDKV_HD_CONSTEXPR int item_bytes(KvType k, KvType v, int dim) {
  return (has_small_rows(k, v, dim) ? 80 : data_bytes(k, v, dim) <= 320 ? 48 : 24) * 1024;
}
PAGEDKV_HD_CONSTEXPR int unit_bytes(KvType k, KvType v, int dim) {
  if (has_small_rows(k, v, dim)) return 24 * 1024;
  const int bytes = data_bytes(k, v, dim);
  return (bytes > 160 && bytes <= 320 ? 48 : 96) * 1024;
}

/// Most splits that are joined at once.
inline constexpr int kMostJoined = 16;

/// More of them are joined in runs, whose results are joined then: log2 of the splits of a run, so that there are about
/// as many runs as splits in one and both take about as long. It follows from the sequence's splits, so that who joins
/// does not show in the bits.
PAGEDKV_HD_CONSTEXPR int join_run_shift(int splits) {
  static_assert(kMostJoined == 1 << 4);
  if (splits <= kMostJoined) return 4;
  int shift = 3;
  while (1 << 2 * shift < splits) ++shift;
  return shift;
}

/// Most runs of a sequence of at most `splits` splits; 0 if they are joined at once.
PAGEDKV_HD_CONSTEXPR int most_runs(int splits) {
  return splits > kMostJoined ? (splits + 7) / 8 : 0;
}

/// Shared memory behind the ring: start of the schedule, parameters, maximum and sum of every row and warp, and what
/// each warp keeps there.
PAGEDKV_HD_CONSTEXPR int extra_shared_bytes(int row_tiles) {
  return 416 + 4 * kWarps + kWarps * 8 * row_tiles * 8 + 16 + 24 * kWarps + 16 +
         kWarps * (544 + 96 * row_tiles + (row_tiles > 1 ? 96 * row_tiles : 24));
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

/// CTAs of a multiprocessor: two where three stages still fit; three of head_dim 64 with one format and one tile of
/// rows, whose kernels fit the registers (with more, spilled registers cost more than the additional warps give).
PAGEDKV_HD_CONSTEXPR int ctas_per_sm(int arch, KvType k, KvType v, int dim, int row_tiles) {
  if (row_tiles == 1 && k == v && dim <= 64 && stages_that_fit(arch, 3, k, v, dim, row_tiles) >= 2) return 3;
  const int enough = arch >= 90 ? 3 : 2;
  return stages_that_fit(arch, 2, k, v, dim, row_tiles) >= enough ? 2 : 1;
}

/// CTAs of a call that has up to so many items. If all have the same length some CTA gets the average, rounded up; then
/// those that are left out here would have had one item less each. They are the last to start, when others of the call
/// before have ended, and so the last to end. Not where rows are so long that only the bytes in flight count, and with
/// many items it makes no difference.
PAGEDKV_HD_CONSTEXPR std::int64_t ctas_of(std::int64_t items, std::int64_t resident, KvType k, KvType v, int dim) {
  if (items <= resident) return items;
  const std::int64_t most = (items + resident - 1) / resident;
  const std::int64_t enough = (items + most - 1) / most;
  const bool long_rows = data_bytes(k, v, dim) > 320 && !shares_rows(dim);
  return most <= 8 && 10 * enough >= 9 * resident && !long_rows ? enough : resident;
}

/// Whether CTAs let the next kernel on the stream start when they begin and not when they end. Three CTAs of the next
/// call fill an SM. If some come while CTAs of this one are there, a few SMs end up with two, and the third starts
/// elsewhere when others have ended, half a kernel late. Where sequences are long and lengths differ that costs more
/// than a late start (which costs 64 sequences of 8192 tokens 2 to 5 %).
PAGEDKV_HD_CONSTEXPR bool starts_next_early(std::int64_t items, std::int64_t resident, int ctas, int max_splits) {
  return ctas < 3 || items <= resident || max_splits <= 4;
}

/// Bytes that all CTAs of a call together bring into L2 while they wait: about half of it, because what they bring in
/// has to stay until they come to it.
inline constexpr int kReadOnBytes = 24 << 20;
/// The same where a quarter of the next call's CTAs or more find room beside those of this one: then most of their wait
/// is not the time between the calls, and they take the bandwidth that this call needs.
inline constexpr int kReadOnBesideBytes = 8 << 20;
/// And when the wait is over, while the memory has nothing to do but to bring queries. Not for int4, whose loops wait
/// less for memory than for instructions.
PAGEDKV_HD_CONSTEXPR int read_on_after_bytes(KvType k, KvType v) {
  return k == KvType::int4 && v == KvType::int4 ? 0 : 8 << 20;
}

/// Registers of a thread: as many as let the CTAs of ctas_per_sm() fit.
PAGEDKV_HD_CONSTEXPR int most_registers(int arch, KvType k, KvType v, int dim, int row_tiles) {
  const int even = 65536 / (ctas_per_sm(arch, k, v, dim, row_tiles) * kWarps * 32) / 8 * 8;
  return even < 255 ? even : 255;
}

/// Parts of a row that a thread loads at a time when it joins them: as many as leave the loop over tiles its registers.
/// With two tiles of rows a thread has several quads of channels one after the other, so more at a time pays.
PAGEDKV_HD_CONSTEXPR int join_ahead(int dim, int row_tiles) {
  if (dim > 128) return dim > 256 ? 2 : 4;
  return row_tiles > 1 ? 16 : 8;
}

PAGEDKV_HD_CONSTEXPR int stages(int arch, KvType k, KvType v, int dim, int row_tiles) {
  return stages_that_fit(arch, ctas_per_sm(arch, k, v, dim, row_tiles), k, v, dim, row_tiles);
}

/// What the splits of a tile of rows have given so far, if a CTA has all of them: float32 of the rows, and maximum and
/// sum twice.
PAGEDKV_HD_CONSTEXPR int kept_bytes(int dim, int row_tiles) {
  return 8 * row_tiles * (4 * value_dim(dim) + 2 * 8);
}

PAGEDKV_HD_CONSTEXPR int ring_and_extra_bytes(int arch, KvType k, KvType v, int dim, int row_tiles) {
  return stages(arch, k, v, dim, row_tiles) * kWarps * stage_bytes(k, v, dim) + extra_shared_bytes(row_tiles);
}

/// Whether there is room for that beside the ring; otherwise it goes through the workspace. Two tiles of rows, or three
/// CTAs, leave too few registers.
PAGEDKV_HD_CONSTEXPR bool keeps_rows(int arch, KvType k, KvType v, int dim, int row_tiles) {
  const int ctas = ctas_per_sm(arch, k, v, dim, row_tiles);
  const int room = shared_bytes_per_sm(arch) / ctas - 1024;
  return row_tiles == 1 && ctas < 3 &&
         ring_and_extra_bytes(arch, k, v, dim, row_tiles) + kept_bytes(dim, row_tiles) <= room;
}

PAGEDKV_HD_CONSTEXPR int shared_bytes(int arch, KvType k, KvType v, int dim, int row_tiles) {
  return ring_and_extra_bytes(arch, k, v, dim, row_tiles) +
         (keeps_rows(arch, k, v, dim, row_tiles) ? kept_bytes(dim, row_tiles) : 0);
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

}  // namespace pagedkv::cuda::impl::decode
