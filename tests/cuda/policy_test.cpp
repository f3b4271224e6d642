// How the CUDA backend cuts its work: plain functions of the shape, which need no device.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda/decode/policy.h"
#include "cuda/flatten_kv/policy.h"
#include "cuda/write_kv/policy.h"

namespace {

namespace decode = pagedkv::cuda::impl::decode;
namespace write = pagedkv::cuda::impl::write_kv;
namespace flatten = pagedkv::cuda::impl::flatten_kv;

TEST(WritePolicy, CoversEveryTokenAndHead) {
  for (const int rows : {4, 8, 16}) {
    for (const int sides : {1, 2}) {
      for (const bool dense : {false, true}) {
        for (const int cp_size : {1, 8}) {
          for (const int heads : {1, 2, 3, 8, 11, 64, 65536}) {
            for (const std::int64_t tokens : {1LL, 7LL, 64LL, 1000LL, 32768LL, 2147483647LL}) {
              const write::Grid g = write::choose_grid(tokens, heads, sides, rows, dense, cp_size, 132);
              EXPECT_EQ(g.chunk % rows, 0);
              EXPECT_GE(g.chunk, rows);
              EXPECT_LE(g.chunk, write::kMaxTokens);
              EXPECT_GE(g.chunks * g.chunk, tokens);
              EXPECT_LT((g.chunks - 1) * g.chunk, tokens) << "a CTA without tokens";
              EXPECT_GE(g.head_groups * g.heads, heads);
              EXPECT_LT((g.head_groups - 1) * g.heads, heads) << "a CTA without heads";
              EXPECT_GE(g.heads_per_task, 1);
              EXPECT_LE(g.heads_per_task, g.heads);
              EXPECT_LE(g.chunks, 2147483647LL) << "the x dimension of a launch";
              EXPECT_LE(g.head_groups, 65535) << "the y dimension of a launch";
            }
          }
        }
      }
    }
  }
}

TEST(WritePolicy, FewTokensSpreadOverTheDevice) {
  // 64 sequences with a new token each, 8 heads: nearly as many CTAs as SMs.
  const write::Grid g = write::choose_grid(64, 8, 2, 4, false, 1, 132);
  EXPECT_GE(g.chunks * g.head_groups, 120);
  EXPECT_EQ(write::choose_variant(64, 8, 128, 132), write::kFewTokens);
  EXPECT_EQ(write::choose_variant(32768, 8, 128, 132), write::kManyTokens);
  EXPECT_EQ(write::choose_variant(64, 8, 96, 132), write::kManyTokens) << "not built";
}

TEST(FlattenPolicy, CoversEveryTokenAndHead) {
  for (const int heads : {1, 3, 8, 11, 65536}) {
    for (const std::int64_t tokens : {1LL, 100LL, 262208LL, 2147483647LL}) {
      const flatten::Grid g = flatten::choose_grid(tokens, heads, 132);
      EXPECT_GE(g.chunks * flatten::kChunk, tokens);
      EXPECT_LT((g.chunks - 1) * flatten::kChunk, tokens);
      EXPECT_GE(g.head_groups * g.heads, heads);
      EXPECT_LT((g.head_groups - 1) * g.heads, heads);
      EXPECT_LE(g.head_groups, 65535);
      EXPECT_LE(g.heads, flatten::kHeads);
    }
  }
  EXPECT_LT(flatten::choose_grid(64, 8, 132).heads, flatten::choose_grid(262208, 8, 132).heads);
}

TEST(DecodePolicy, FitsTheDevice) {
  using pagedkv::KvType;
  for (const KvType k : {KvType::same, KvType::int8, KvType::int4}) {
    for (const KvType v : {KvType::same, KvType::int8, KvType::int4}) {
      for (const int dim : {64, 96, 128, 192, 256, decode::kMlaDim}) {
        if (dim == decode::kMlaDim && k != v) continue;
        for (const int tiles : {1, 2}) {
          if (tiles == 2 && (k != v || (dim != 64 && dim != 128))) continue;
          const int ctas = decode::ctas_per_sm(90, k, v, dim, tiles);
          EXPECT_GE(decode::stages(90, k, v, dim, tiles), 2);
          EXPECT_LE(ctas * (decode::shared_bytes(90, k, v, dim, tiles) + 1024), 228 * 1024);
          // A warp of each CTA on each of the four schedulers, which have 16384 registers.
          const int free = 16384 - ctas * 32 * decode::most_registers(90, k, v, dim, tiles);
          EXPECT_GE(free, 0);
          EXPECT_EQ(decode::keeps_rows(90, k, v, dim, tiles), ctas < 3 && tiles == 1 && dim != decode::kMlaDim)
              << dim << ' ' << static_cast<int>(k) << ' ' << static_cast<int>(v);
          if (k == v && dim <= 128) {
            EXPECT_EQ(ctas, dim == 64 && tiles == 1 ? 3 : 2);
          }
        }
        // A warp's part of a split lies in 32 blocks of 16 tokens, so that each lane has the entry of one.
        EXPECT_LE((1 << decode::split_shift(dim)) / decode::kWarps, 32 * 16);
        EXPECT_EQ((1 << decode::split_shift(dim)) % (decode::kWarps * decode::tile_tokens(k, v, dim)), 0);
        if (decode::long_end(k, v, dim, 1) > decode::kLongLength) {
          EXPECT_LT(decode::kLongSplit, 1 << decode::split_shift(dim));
          EXPECT_EQ(decode::kLongSplit % (decode::kWarps * decode::tile_tokens(k, v, dim)), 0);
        }
      }
    }
  }
}

/// sm_80 has less shared memory for a CTA; where it has not enough, what the splits give goes through the workspace.
TEST(DecodePolicy, FitsOlderDevices) {
  using pagedkv::KvType;
  const auto has = [](KvType k, KvType v, KvType one, KvType other) {
    return (k == one && v == other) || (k == other && v == one);
  };
  for (const KvType k : {KvType::same, KvType::int8, KvType::int4}) {
    for (const KvType v : {KvType::same, KvType::int8, KvType::int4}) {
      for (const int dim : {64, 96, 128, 192, 256, decode::kMlaDim}) {
        if (dim == decode::kMlaDim && k != v) continue;
        for (const int tiles : {1, 2}) {
          if (tiles == 2 && (k != v || (dim != 64 && dim != 128))) continue;
          const int ctas = decode::ctas_per_sm(80, k, v, dim, tiles);
          EXPECT_GE(decode::stages(80, k, v, dim, tiles), 2);
          EXPECT_LE(ctas * (decode::shared_bytes(80, k, v, dim, tiles) + 1024), 164 * 1024);
          EXPECT_GE(16384 - ctas * 32 * decode::most_registers(80, k, v, dim, tiles), 0);
          const bool no_room = (has(k, v, KvType::same, KvType::int8) && dim <= 192) ||
                               (has(k, v, KvType::int8, KvType::int4) && (dim == 128 || dim == 192)) ||
                               (has(k, v, KvType::int8, KvType::int8) && (dim == 96 || dim == 192)) ||
                               (has(k, v, KvType::int4, KvType::int4) && dim == 192);
          EXPECT_EQ(decode::keeps_rows(80, k, v, dim, tiles),
                    ctas < 3 && tiles == 1 && dim != decode::kMlaDim && !no_room)
              << dim << ' ' << static_cast<int>(k) << ' ' << static_cast<int>(v);
        }
      }
    }
  }
}

/// Tokens of a split of a sequence, as docs/decode.md has it.
int split_tokens(pagedkv::KvType k, pagedkv::KvType v, int dim, int kv_heads, int k_len) {
  using pagedkv::KvType;
  if (k_len <= 1024) return decode::data_bytes(k, v, dim) > 320 ? 128 : 256;
  const bool may_be_long = dim == 64 && k == v && k != KvType::same && kv_heads <= 4;
  const int items = kv_heads * ((k_len - 1) / 1280 + 1);
  return may_be_long && k_len > 65536 && items <= 384 ? 1280 : dim == decode::kMlaDim ? 1024 : 2048;
}

/// The workspace has room for the splits of every sequence up to the stated maximum, and for no more. The lengths are
/// those around which the number of splits changes, where the rule does as well and at some other places.
TEST(DecodePolicy, SplitsFitTheWorkspace) {
  using pagedkv::KvType;
  std::vector<int> lengths = {0};
  const auto around = [&](int length) {
    for (const int by : {-1, 0, 1}) lengths.push_back(length + by);
  };
  for (int i = 1; i <= 8; ++i) around(i * 128);
  for (int i = 1; i <= 450; ++i) {  // up to 576000 and 921600: beyond every long_end()
    around(i * 1280);
    around(i * 1024);
    around(i * 2048);
  }
  for (const int length : {1 << 24, 2147483646}) around(length);
  std::sort(lengths.begin(), lengths.end());
  for (const KvType k : {KvType::same, KvType::int8, KvType::int4}) {
    for (const KvType v : {KvType::same, KvType::int8, KvType::int4}) {
      for (const int dim : {64, 96, 128, 192, 256, decode::kMlaDim}) {
        if (dim == decode::kMlaDim && k != v) continue;
        for (int kv_heads = 1; kv_heads <= 9; ++kv_heads) {
          int most = 1;
          for (const int length : lengths) {
            const int tokens = split_tokens(k, v, dim, kv_heads, length);
            ASSERT_EQ(decode::split_tokens(k, v, dim, kv_heads, length), tokens) << kv_heads << ' ' << length;
            most = std::max(most, length == 0 ? 1 : (length - 1) / tokens + 1);
            ASSERT_EQ(decode::max_splits(k, v, dim, kv_heads, length), most)
                << dim << ' ' << static_cast<int>(k) << ' ' << static_cast<int>(v) << ' ' << kv_heads << ' ' << length;
          }
        }
      }
    }
  }
  constexpr auto int8 = KvType::int8;
  EXPECT_EQ(decode::long_end(int8, int8, 64, 1), 491520);
  EXPECT_EQ(decode::long_end(int8, int8, 64, 2), 245760);
  EXPECT_EQ(decode::long_end(int8, int8, 64, 3), 163840);
  EXPECT_EQ(decode::long_end(int8, int8, 64, 4), 122880);
  EXPECT_EQ(decode::long_end(int8, int8, 64, 5), 65536);
}

TEST(DecodePolicy, NextKernelStartsEarlyUnlessItWouldLeaveHoles) {
  EXPECT_TRUE(decode::starts_next_early(768, 264, 2, 64)) << "what is beside two CTAs leaves room for the next one's";
  EXPECT_TRUE(decode::starts_next_early(396, 396, 3, 64)) << "an item each: a late start would cost more";
  EXPECT_TRUE(decode::starts_next_early(768, 396, 3, 4)) << "up to 8192 tokens";
  EXPECT_FALSE(decode::starts_next_early(768, 396, 3, 5));
}

TEST(DecodePolicy, CtasComeOutEvenWhereItemsAreFew) {
  using pagedkv::KvType;
  const auto ctas = [](std::int64_t items, KvType type, int dim) {
    return decode::ctas_of(items, dim == 64 ? 396 : 264, type, type, dim);
  };
  EXPECT_EQ(ctas(17, KvType::int4, 128), 17);
  EXPECT_EQ(ctas(264, KvType::int4, 128), 264);
  EXPECT_EQ(ctas(2048, KvType::int4, 128), 256) << "8 each";
  EXPECT_EQ(ctas(768, KvType::int4, 64), 384) << "2 each";
  EXPECT_EQ(ctas(768, KvType::same, 64), 384);
  EXPECT_EQ(ctas(2048, KvType::same, 128), 264) << "only the bytes in flight count";
  EXPECT_EQ(ctas(270, KvType::int4, 128), 264) << "135 CTAs of two items would leave SMs without work";
  EXPECT_EQ(ctas(16384, KvType::int4, 128), 264) << "many items";
}

/// The workspace has room for the runs of shorter sequences too, which may have more of them.
TEST(DecodePolicy, RunsFitTheWorkspace) {
  int most = 0;
  for (int splits = 1; splits <= 70000; ++splits) {
    const int shift = decode::join_run_shift(splits);
    const int runs = (splits + (1 << shift) - 1) >> shift;
    if (splits <= decode::kMostJoined) {
      ASSERT_EQ(runs, 1) << splits;
    } else {
      ASSERT_LE(runs, 1 << shift) << splits;
      most = std::max(most, runs);
      ASSERT_LE(most, decode::most_runs(splits)) << splits;
    }
  }
}

}  // namespace
