// Laws of BlockLayout, exhaustively for small shapes: every byte of a block belongs to exactly one row or parameter
// pair, every region is aligned, and the offsets are those of the oracle, which adds regions up one by one.

#include "oracle/layout.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pagedkv/cache_config.h"
#include "pagedkv/error.h"
#include "support/convert.h"

namespace {

using pagedkv::BlockLayout;
using pagedkv::CacheConfig;
using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;

constexpr DType kDtypes[] = {DType::f32, DType::f16, DType::bf16};
constexpr KvType kTypes[] = {KvType::same, KvType::int8, KvType::int4};

std::string describe(const CacheConfig& c) {
  return std::string(name(c.dtype)) + " K " + name(c.format.k) + " V " + name(c.format.v) +
         (c.shared_kv ? " shared" : "") + ", layers " + std::to_string(c.layers) + ", heads " +
         std::to_string(c.kv_heads) + ", head_dim " + std::to_string(c.head_dim) + ", block_len " +
         std::to_string(c.block_len);
}

void for_small_configs(const std::function<void(const CacheConfig&)>& body) {
  for (const DType dtype : kDtypes)
    for (const KvType k : kTypes)
      for (const KvType v : kTypes)
        for (const bool shared : {false, true})
          for (const int layers : {1, 3})
            for (const int heads : {1, 3})
              for (const int head_dim : {16, 48, 80, 128})
                for (const int block_len : {1, 2, 3, 4, 6, 8, 12, 16}) {
                  if (shared && k != v) continue;
                  CacheConfig c;
                  c.layers = layers;
                  c.kv_heads = heads;
                  c.head_dim = head_dim;
                  c.block_len = block_len;
                  c.dtype = dtype;
                  c.format = {k, v};
                  c.shared_kv = shared;
                  SCOPED_TRACE(describe(c));
                  body(c);
                  if (testing::Test::HasFailure()) return;
                }
}

bool regions_are_aligned(const oracle::Layout& layout) {
  for (const oracle::Region& r : layout.regions()) {
    if (r.first % 16 != 0 || r.bytes % 16 != 0) return false;
  }
  return true;
}

TEST(Layout, RefusesExactlyWhatIsNotAligned) {
  int refused = 0;
  int held = 0;
  for_small_configs([&](const CacheConfig& c) {
    const bool good = regions_are_aligned(oracle::Layout(support::to_oracle(c)));
    try {
      const BlockLayout l = make_layout(c);
      EXPECT_TRUE(good);
      EXPECT_EQ(l.block_bytes % 16, 0);
      ++held;
    } catch (const pagedkv::Error& e) {
      EXPECT_FALSE(good) << e.what();
      EXPECT_EQ(e.argument(), "CacheConfig.block_len");
      ++refused;
    }
  });
  EXPECT_GT(refused, 0);
  EXPECT_GT(held, 0);
}

TEST(Layout, EveryByteBelongsToOneRow) {
  for_small_configs([](const CacheConfig& c) {
    if (!regions_are_aligned(oracle::Layout(support::to_oracle(c)))) return;
    const BlockLayout l = make_layout(c);
    std::vector<std::uint8_t> owners(static_cast<std::size_t>(l.block_bytes));
    const auto claim = [&](std::int64_t first, std::int64_t bytes) {
      ASSERT_GE(first, 0);
      ASSERT_LE(first + bytes, l.block_bytes);
      for (std::int64_t i = first; i < first + bytes; ++i) ++owners[static_cast<std::size_t>(i)];
    };
    for (int layer = 0; layer < c.layers; ++layer)
      for (int head = 0; head < c.kv_heads; ++head)
        for (int token = 0; token < c.block_len; ++token) {
          claim(l.k_data(layer, head, token), l.k_row_bytes);
          claim(l.k_param(layer, head, token), l.k_param_bytes);
          if (c.shared_kv) {
            EXPECT_EQ(l.v_data(layer, head, token), l.k_data(layer, head, token));
            EXPECT_EQ(l.v_param(layer, head, token), l.k_param(layer, head, token));
            continue;
          }
          claim(l.v_data(layer, head, token), l.v_row_bytes);
          claim(l.v_param(layer, head, token), l.v_param_bytes);
        }
    for (const std::uint8_t n : owners) ASSERT_EQ(n, 1);
  });
}

TEST(Layout, OffsetsAreTheOracles) {
  for_small_configs([](const CacheConfig& c) {
    const oracle::Layout expected(support::to_oracle(c));
    if (!regions_are_aligned(expected)) return;
    const BlockLayout l = make_layout(c);
    EXPECT_EQ(l.block_bytes, expected.block_bytes());
    for (int layer = 0; layer < c.layers; ++layer)
      for (int head = 0; head < c.kv_heads; ++head)
        for (int token = 0; token < c.block_len; ++token) {
          EXPECT_EQ(l.k_data(layer, head, token), expected.data(layer, head, oracle::Side::key, token));
          EXPECT_EQ(l.v_data(layer, head, token), expected.data(layer, head, oracle::Side::value, token));
          if (c.format.k != KvType::same) {
            EXPECT_EQ(l.k_param(layer, head, token), expected.params(layer, head, oracle::Side::key, token));
          }
          if (c.format.v != KvType::same) {
            EXPECT_EQ(l.v_param(layer, head, token), expected.params(layer, head, oracle::Side::value, token));
          }
        }
  });
}

TEST(Layout, SizesOfKnownModels) {
  CacheConfig c;
  c.layers = 32;
  c.kv_heads = 8;
  c.head_dim = 128;
  c.block_len = 64;
  c.format = pagedkv::format_from_quant_policy(8);
  EXPECT_EQ(make_layout(c).block_bytes, 4'325'376);
  c.format = pagedkv::format_from_quant_policy(0);
  EXPECT_EQ(make_layout(c).block_bytes, 32 * 8 * 2 * 64 * 256);
  c.format = pagedkv::format_from_quant_policy(4);
  EXPECT_EQ(make_layout(c).block_bytes, 32 * 8 * 2 * 64 * (64 + 4));
  c.format = {KvType::int8, KvType::int4};
  EXPECT_EQ(make_layout(c).block_bytes, 32 * 8 * 64 * (128 + 4 + 64 + 4));

  CacheConfig mla;
  mla.layers = 61;
  mla.kv_heads = 1;
  mla.head_dim = 576;
  mla.shared_kv = true;
  mla.format = {KvType::int8, KvType::int8};
  EXPECT_EQ(make_layout(mla).block_bytes, 61 * 64 * (576 + 4));
}

TEST(Layout, OffsetsPassFourGigabytes) {
  CacheConfig c;
  c.layers = 128;
  c.kv_heads = 128;
  c.head_dim = 256;
  c.block_len = 1024;
  const BlockLayout l = make_layout(c);
  const std::int64_t head_bytes = std::int64_t{2} * 1024 * 512;
  EXPECT_EQ(l.block_bytes, 128 * 128 * head_bytes);
  EXPECT_EQ(l.v_data(127, 127, 1023), l.block_bytes - 512);

  c.layers = c.kv_heads = c.block_len = 65536;
  c.head_dim = 1024;
  c.dtype = DType::f32;
  EXPECT_EQ(make_layout(c).block_bytes, std::int64_t{1} << 61);
}

TEST(Layout, QuantPolicies) {
  EXPECT_EQ(pagedkv::format_from_quant_policy(0), (KvFormat{KvType::same, KvType::same}));
  EXPECT_EQ(pagedkv::format_from_quant_policy(8), (KvFormat{KvType::int8, KvType::int8}));
  EXPECT_EQ(pagedkv::format_from_quant_policy(4), (KvFormat{KvType::int4, KvType::int4}));
}

TEST(Layout, ByteTable) {
  CacheConfig c;
  c.layers = 32;
  c.kv_heads = 8;
  c.format = {KvType::int8, KvType::same};
  EXPECT_EQ(to_string(make_layout(c)),
            "turbomind block of 64 tokens: 32 layers, 8 KV heads, head_dim 128, f16, keys int8, values same\n"
            "byte of layer l, head h, token t = first byte + l * 198656 + h * head stride + t * token stride\n"
            "region      first byte   head stride  token stride  bytes per layer\n"
            "K data               0         24576           128            65536\n"
            "V data            8192         24576           256           131072\n"
            "K param         196608           256             4             2048\n"
            "layer                                                        198656\n"
            "block                                                       6356992\n");
  CacheConfig mla;
  mla.head_dim = 576;
  mla.shared_kv = true;
  mla.format = {KvType::int4, KvType::int4};
  EXPECT_EQ(to_string(make_layout(mla)),
            "turbomind block of 64 tokens: 1 layers, 1 KV heads, head_dim 576, f16, keys and values shared as int4\n"
            "byte of layer l, head h, token t = first byte + l * 18688 + h * head stride + t * token stride\n"
            "region      first byte   head stride  token stride  bytes per layer\n"
            "KV data              0         18432           288            18432\n"
            "KV param         18432           256             4              256\n"
            "layer                                                         18688\n"
            "block                                                         18688\n");
}

}  // namespace
