// The iterators on the host, against the offsets of BlockLayout.

#include "pagedkv/core/block_iterator.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "pagedkv/cache_config.h"
#include "pagedkv/core/half.h"

namespace {

using pagedkv::BlockLayout;
using pagedkv::CacheConfig;
using pagedkv::half_t;
using pagedkv::KvType;
using pagedkv::SubBytePtr;
using pagedkv::uint4_t;

template <class P>
char* address(P p) {
  if constexpr (std::is_same_v<P, SubBytePtr>) {
    return p.ptr;
  } else {
    return reinterpret_cast<char*>(p);
  }
}

template <class Tkv_, int D_>
struct Case {
  using Tkv = Tkv_;
  static constexpr int D = D_;
};

template <class C>
class BlockIteratorTest : public testing::Test {};
using Cases = testing::Types<Case<half_t, 128>, Case<std::uint8_t, 128>, Case<uint4_t, 128>, Case<std::uint8_t, 64>,
                             Case<uint4_t, 576>>;
TYPED_TEST_SUITE(BlockIteratorTest, Cases);

TYPED_TEST(BlockIteratorTest, WalksBackwards) {
  using Tkv = typename TypeParam::Tkv;
  constexpr int kD = TypeParam::D;
  constexpr int kTile = 16;
  constexpr int kLayers = 3;
  constexpr KvType kStored = pagedkv::detail::stored_type<half_t, Tkv>();
  CacheConfig config;
  config.layers = kLayers;
  config.kv_heads = kD == 576 ? 1 : 2;
  config.head_dim = kD;
  config.block_len = 32;
  config.format = {kStored, kStored};
  config.shared_kv = kD == 576;
  const BlockLayout expected = make_layout(config);
  const pagedkv::block::Layout<pagedkv::block::Config<half_t, Tkv, kD>> layout{config.kv_heads, config.block_len};
  EXPECT_EQ(layout.block_size(kLayers), expected.block_bytes);

  // Two sequences of 2 and 3 blocks, anywhere in memory.
  std::vector<std::vector<char>> memory(5, std::vector<char>(static_cast<std::size_t>(expected.block_bytes)));
  std::vector<char*> blocks;
  for (const int i : {3, 0, 4, 1, 2}) blocks.push_back(memory[static_cast<std::size_t>(i)].data());
  const int cu_block_nums[] = {0, 2, 5};
  for (int layer_id = 0; layer_id < kLayers; ++layer_id) {
    auto factory = pagedkv::GetBlockIterFactory<half_t, Tkv, kTile, kD>{layout, blocks.data(), cu_block_nums, layer_id};
    for (int b = 0; b < 2; ++b) {
      const int tiles = (cu_block_nums[b + 1] - cu_block_nums[b]) * config.block_len / kTile;
      for (int h = 0; h < config.kv_heads; ++h) {
        auto iter = factory.Create(b, h);
        iter.SetTile(tiles - 1);
        for (int tile = tiles - 1; tile >= 0; --tile) {
          char* block = blocks[static_cast<std::size_t>(cu_block_nums[b] + tile * kTile / config.block_len)];
          const int token = tile * kTile % config.block_len;
          for (const int row : {0, kTile - 1}) {
            EXPECT_EQ(address(iter.template OffsetPtr<0>(row * kD)), block + expected.k_data(layer_id, h, token + row));
            EXPECT_EQ(address(iter.template OffsetPtr<1>(row * kD)), block + expected.v_data(layer_id, h, token + row));
            if (kStored == KvType::same) continue;
            EXPECT_EQ(address(iter.template OffsetPtr<2>(row * 2)), block + expected.k_param(layer_id, h, token + row));
            EXPECT_EQ(address(iter.template OffsetPtr<3>(row * 2)), block + expected.v_param(layer_id, h, token + row));
          }
          iter.Advance();
        }
        // One step before the front it points into the first block still.
        EXPECT_EQ(iter.block_, blocks[static_cast<std::size_t>(cu_block_nums[b])]);
      }
    }
  }
}

TEST(LinearIterator, WalksBackwardsAndStopsAtTheFront) {
  constexpr int kD = 64;
  constexpr int kTile = 16;
  const std::vector<half_t> memory(3 * 2 * 100 * kD);
  const int cu[] = {10, 40, 110};  // counted from the first value
  pagedkv::LinearIteratorFactory<half_t, kTile, kD> factory{memory.data(), cu, 2 * 100 * kD, 100 * kD};
  for (int h = 0; h < 3; ++h) {
    auto iter = factory.Create(1, h);
    const half_t* base = memory.data() + h * 2 * 100 * kD + 30 * kD;
    iter.SetTile(3);
    for (const int tile : {3, 2, 1, 0, 0}) {
      EXPECT_EQ(iter.OffsetPtr<0>(5), base + tile * kTile * kD + 5);
      EXPECT_EQ(iter.OffsetPtr<1>(5), base + 100 * kD + tile * kTile * kD + 5);
      EXPECT_EQ(iter.OffsetPtr<2>(0), nullptr);
      iter.Advance();
    }
  }
}

TEST(CreateCacheIterFactory, PicksTheParametersOfTheFactory) {
  struct Params {
    struct {
      const void* kv_cache;
      std::int64_t stride_h;
      std::int64_t key_to_val;
    } linear_iter_params;
    struct {
      char** block_ptrs;
      const int* cu_block_nums;
      int layer_id;
      int block_len;
    } block_iter_params;
    const int* cu_k_len;
    int num_kv_heads;
  };
  char* blocks[1] = {};
  const int cu[] = {0, 1};
  const half_t cache[1] = {};
  const Params params{{cache, 7, 9}, {blocks, cu, 5, 64}, cu + 1, 3};

  const auto linear = pagedkv::CreateCacheIterFactory<pagedkv::LinearIteratorFactory<half_t, 64, 128>>::apply(params);
  EXPECT_EQ(linear.kv_cache, cache);
  EXPECT_EQ(linear.cu_ctx_len, cu + 1);
  EXPECT_EQ(linear.stride_h, 7);
  EXPECT_EQ(linear.key_to_val, 9);

  const auto paged =
      pagedkv::CreateCacheIterFactory<pagedkv::GetBlockIterFactory<half_t, std::uint8_t, 64, 128>>::apply(params);
  EXPECT_EQ(paged.block_ptrs, blocks);
  EXPECT_EQ(paged.cu_block_nums, cu);
  EXPECT_EQ(paged.layer_id, 5);
  EXPECT_EQ(paged.layout.block_len(), 64);
  EXPECT_EQ(paged.layout.layer_size(), 3 * 2 * 64 * (128 + 4));
}

}  // namespace
