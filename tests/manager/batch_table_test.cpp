#include <gtest/gtest.h>

#include <span>
#include <vector>

#include "oracle/context_parallel.h"
#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"

namespace {

using pagedkv::BatchTable;
using pagedkv::BlockId;
using pagedkv::BlockPool;
using pagedkv::SequenceBlocks;

pagedkv::BlockLayout small_layout() {
  pagedkv::CacheConfig c;
  c.head_dim = 16;
  c.block_len = 4;
  return make_layout(c);
}

TEST(BatchTable, HoldsTheBlocksOfEachSequence) {
  BlockPool pool(small_layout(), 10);
  SequenceBlocks a(pool);
  SequenceBlocks b(pool);
  SequenceBlocks c(pool);
  ASSERT_TRUE(a.append(4));
  ASSERT_TRUE(c.append(3));
  ASSERT_TRUE(a.append(5));  // a: blocks 0, 2, 3; b: none; c: block 1
  const std::vector<std::span<const BlockId>> rows = {a.blocks(), b.blocks(), c.blocks()};
  const BatchTable t = make_batch_table(pool, rows);
  EXPECT_EQ(t.cu_blocks, (std::vector<std::int32_t>{0, 3, 3, 4}));
  EXPECT_EQ(t.indices, (std::vector<std::int32_t>{0, 2, 3, 1}));
  ASSERT_EQ(t.pointers.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(t.pointers[i], pool.address(BlockId{t.indices[i]}));

  const pagedkv::BlockTable by_index = t.by_index();
  EXPECT_EQ(by_index.indices, t.indices.data());
  EXPECT_EQ(by_index.pointers, nullptr);
  EXPECT_EQ(by_index.slab, pool.slab());
  EXPECT_EQ(by_index.slab_blocks, 10);
  EXPECT_EQ(by_index.cu_blocks, t.cu_blocks.data());

  const pagedkv::BlockTable by_pointer = t.by_pointer();
  EXPECT_EQ(by_pointer.pointers, t.pointers.data());
  EXPECT_EQ(by_pointer.indices, nullptr);
  EXPECT_EQ(by_pointer.slab, nullptr);
  EXPECT_EQ(by_pointer.cu_blocks, t.cu_blocks.data());
}

TEST(LocalTokens, AreDealtInTurn) {
  for (const int size : {1, 2, 3, 8}) {
    for (const int interleave : {1, 4, 16}) {
      for (int rank = 0; rank < size; ++rank) {
        for (const int length : {0, 1, 3, 4, 5, 16, 63, 64, 65, 200}) {
          EXPECT_EQ(pagedkv::local_tokens({rank, size, interleave}, length),
                    static_cast<int>(oracle::owned_positions(rank, size, interleave, length).size()));
        }
      }
    }
  }
}

TEST(BatchTable, EmptyBatchAndEmptySequencesHaveViews) {
  BlockPool pool(small_layout(), 1);
  const SequenceBlocks none(pool);
  for (const std::size_t batch : {0U, 1U, 2U}) {
    const std::vector<std::span<const BlockId>> rows(batch, none.blocks());
    const BatchTable t = make_batch_table(pool, rows);
    EXPECT_EQ(t.cu_blocks, std::vector<std::int32_t>(batch + 1, 0));
    EXPECT_NE(t.by_index().indices, nullptr);
    EXPECT_NE(t.by_pointer().pointers, nullptr);
  }
}

}  // namespace
