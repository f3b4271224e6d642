// write_kv and flatten_kv against the oracle: every stored row, every byte that must not change, every row read back.

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "ops/generate.h"

namespace {

using pagedkv::CacheConfig;
using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;
using support::Arrangement;
using support::Cache;
using support::Content;
using support::Random;

void write(const pagedkv::WriteKvArgs& args) {
  pagedkv::cpu::write_kv(args, {2});
}
void flatten(const pagedkv::FlattenKvArgs& args) {
  pagedkv::cpu::flatten_kv(args, {2});
}

RC_GTEST_PROP(WriteFlatten, RowsAreTheOracles, ()) {
  const CacheConfig config = generate::config();
  const std::vector<int> lengths = generate::lengths();
  Random random = generate::random();
  const support::Spice spice{random.chance(3), random.chance(2), random.chance(2)};
  Content content = make_content(config, lengths, spice, random);
  content.cp = generate::context_parallel();
  Cache cache(content, Arrangement::random(generate::block_lens(), random));
  cache.write_all(generate::write_kv());
  RC_ASSERT(cache.why_wrong() == "");
  RC_ASSERT(cache.why_touched() == "");
  const bool rotate_again = random.chance(3);
  RC_ASSERT(cache.why_flatten_wrong(generate::flatten_kv(), support::kRowOrders[random.integer(0, 3)], rotate_again) ==
            "");
  RC_ASSERT(cache.why_touched() == "");
}

struct Shape {
  const char* name;
  int head_dim;
  bool shared_kv;
  friend std::ostream& operator<<(std::ostream& os, const Shape& s) { return os << s.name; }
};

class HeadDims : public testing::TestWithParam<Shape> {};

TEST_P(HeadDims, EveryTypeAndFormat) {
  Random random(7);
  int next_order = 0;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const KvFormat format : {KvFormat{KvType::same, KvType::same}, KvFormat{KvType::int8, KvType::int8},
                                  KvFormat{KvType::int4, KvType::int4}, KvFormat{KvType::int8, KvType::int4}}) {
      if (GetParam().shared_kv && format.k != format.v) continue;
      CacheConfig config;
      config.layers = 2;
      config.kv_heads = GetParam().shared_kv ? 1 : 2;
      config.head_dim = GetParam().head_dim;
      config.dtype = dtype;
      config.format = format;
      config.shared_kv = GetParam().shared_kv;
      SCOPED_TRACE(std::string(name(dtype)) + " K " + name(format.k) + " V " + name(format.v));
      const support::RowOrder order = support::kRowOrders[next_order++ % 4];
      const Content content = make_content(config, {5, 0, 33}, {.bias = true, .rope = true}, random);
      Arrangement arrangement;
      arrangement.block_len = 16;
      arrangement.rows = order;
      Cache cache(content, arrangement);
      cache.write_all(write);
      ASSERT_EQ(cache.why_wrong(), "");
      ASSERT_EQ(cache.why_touched(), "");
      ASSERT_EQ(cache.why_flatten_wrong(flatten, order, false), "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(WriteFlatten, HeadDims,
                         testing::Values(Shape{"D64", 64, false}, Shape{"D80", 80, false}, Shape{"D96", 96, false},
                                         Shape{"D128", 128, false}, Shape{"D192", 192, false},
                                         Shape{"D256", 256, false}, Shape{"D576", 576, false},
                                         Shape{"D1024", 1024, false}, Shape{"Mla576", 576, true}),
                         [](const auto& shape) { return shape.param.name; });

TEST(WriteFlatten, LengthsAroundBlockBoundaries) {
  Random random(11);
  CacheConfig config;
  config.kv_heads = 2;
  config.head_dim = 64;
  config.format = {KvType::int4, KvType::int8};
  std::vector<int> lengths;
  for (const int blocks : {0, 1, 2, 3}) {
    for (const int d : {-1, 0, 1}) {
      if (blocks * 16 + d >= 0) lengths.push_back(blocks * 16 + d);
    }
  }
  for (const bool pointers : {false, true}) {
    for (const bool ragged : {false, true}) {
      const Content content = make_content(config, lengths, {}, random);
      Arrangement arrangement;
      arrangement.block_len = 16;
      arrangement.pointers = pointers;
      arrangement.ragged = ragged;
      Cache cache(content, arrangement);
      cache.write_all(write);
      ASSERT_EQ(cache.why_wrong(), "");
      ASSERT_EQ(cache.why_touched(), "");
      for (const support::RowOrder order : support::kRowOrders) {
        ASSERT_EQ(cache.why_flatten_wrong(flatten, order, false), "");
      }
    }
  }
}

TEST(WriteFlatten, EmptyBatchAndNoNewTokens) {
  Random random(13);
  CacheConfig config;
  config.head_dim = 64;
  const Content none = make_content(config, {}, {}, random);
  Cache empty(none, {});
  empty.write(write, {});
  EXPECT_EQ(empty.why_touched(), "");
  EXPECT_EQ(empty.why_flatten_wrong(flatten, support::RowOrder::packed, false), "");

  // With no batch there is nothing to point to.
  pagedkv::WriteKvArgs args;
  args.layout = empty.layout();
  EXPECT_NO_THROW(pagedkv::cpu::write_kv(args));
  pagedkv::FlattenKvArgs flat;
  flat.layout = empty.layout();
  EXPECT_NO_THROW(pagedkv::cpu::flatten_kv(flat));

  const Content content = make_content(config, {70, 3}, {}, random);
  Cache cache(content, {});
  cache.write(write, {{0, 70, 70}, {1, 0, 0}});
  EXPECT_EQ(cache.why_touched(), "");
}

TEST(WriteFlatten, ReadonlyPrefixStaysUntouched) {
  Random random(17);
  CacheConfig config;
  config.kv_heads = 2;
  config.head_dim = 64;
  for (const KvType stored : {KvType::same, KvType::int8, KvType::int4}) {
    config.format = {stored, stored};
    for (const int cp_size : {1, 2, 3}) {
      Content content = make_content(config, {50, 20, 64, 7}, {}, random);
      content.cp.size = cp_size;
      content.cp.interleave = 4;
      for (content.cp.rank = 0; content.cp.rank < cp_size; ++content.cp.rank) {
        Arrangement arrangement;
        arrangement.block_len = 8;
        Cache cache(content, arrangement);
        // The last sequence is read-only as a whole and beyond its end.
        cache.set_readonly_blocks({2, 0, 1, 5});
        cache.write_all(write);
        ASSERT_EQ(cache.why_wrong(), "");
        ASSERT_EQ(cache.why_touched(), "");
      }
    }
  }
}

TEST(WriteFlatten, PositionsUpToTheLimit) {
  // Table entries of blocks that hold no new token are null: only the last two blocks exist.
  constexpr int kBlockLen = 65536;
  constexpr int kBlocks = 32768;
  constexpr std::int32_t kLength = std::numeric_limits<std::int32_t>::max();
  CacheConfig config;
  config.head_dim = 16;
  config.block_len = kBlockLen;
  config.dtype = DType::f32;
  const pagedkv::BlockLayout layout = make_layout(config);
  support::Poisoned memory(static_cast<std::size_t>(layout.block_bytes));
  std::vector<char*> pointers(kBlocks, nullptr);
  pointers.back() = memory.data();
  constexpr int kNew = 3;
  const std::int32_t cu_q[] = {0, kNew};
  const std::int32_t cu_k[] = {0, kLength};
  std::vector<double> ones(kNew * 16, 1.0);
  const support::Tensor k(oracle::Type::f32, ones);
  pagedkv::RopeParams rope;
  rope.type = pagedkv::RopeType::standard;
  rope.dim = 16;
  pagedkv::WriteKvArgs args;
  args.layout = layout;
  args.table.pointers = pointers.data();
  args.table.row_stride = kBlocks;
  args.batch = 1;
  args.cu_q = cu_q;
  args.cu_k = cu_k;
  args.k = args.v = k.at(0);
  args.strides = pagedkv::packed_strides(1, 16);
  args.rope = make_rope_table(rope, 16);
  pagedkv::cpu::write_kv(args);

  oracle::Rope expected;
  expected.kind = oracle::RopeKind::standard;
  expected.dim = 16;
  for (int i = 0; i < kNew; ++i) {
    const long long position = std::int64_t{kLength} - kNew + i;
    std::vector<double> row(16, 1.0);
    oracle::rotate(expected, {position, position, position}, row);
    for (int d = 0; d < 16; ++d) {
      const char* stored = memory.data() + layout.k_data(0, 0, static_cast<int>(position % kBlockLen)) + 4 * d;
      EXPECT_NEAR(oracle::load(oracle::Type::f32, stored), row[static_cast<std::size_t>(d)], 1e-6) << i << " " << d;
    }
  }
}

}  // namespace
