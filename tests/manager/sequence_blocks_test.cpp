// SequenceBlocks against an engine in miniature: blocks hold one number per token, and whatever sequences append, cut,
// share and drop, each must read back the numbers it wrote.

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/error.h"

namespace {

using pagedkv::BlockCopy;
using pagedkv::BlockId;
using pagedkv::BlockPool;
using pagedkv::SequenceBlocks;

pagedkv::BlockLayout layout_of(int block_len) {
  pagedkv::CacheConfig c;
  c.head_dim = 16;
  c.block_len = block_len;
  return make_layout(c);
}

/// Sequences that schedule appends, then carry out the copies in order, then write the new tokens: an engine's step.
class Engine {
 public:
  Engine(int block_len, int blocks)
      : block_len_(block_len),
        pool_(layout_of(block_len), blocks),
        memory_(static_cast<std::size_t>(blocks), std::vector<int>(static_cast<std::size_t>(block_len), -1)) {}

  bool empty() const { return sequences_.empty(); }
  void create() { sequences_.emplace_back(SequenceBlocks(pool_)); }

  void append(std::size_t which, int count) {
    Sequence& s = pick(which);
    const int needed = s.blocks.blocks_for(count);
    const int free = pool_.free_blocks();
    const std::vector<BlockId> before(s.blocks.blocks().begin(), s.blocks.blocks().end());
    const auto appended = s.blocks.append(count);
    RC_ASSERT(appended.has_value() == (needed <= free));
    if (!appended) {
      RC_ASSERT(pool_.free_blocks() == free);
      RC_ASSERT(std::ranges::equal(s.blocks.blocks(), before));
      RC_ASSERT(s.blocks.tokens() == static_cast<int>(s.tokens.size()));
      return;
    }
    RC_ASSERT(pool_.free_blocks() == free - needed);
    if (appended->copy) copies_.push_back(*appended->copy);
    for (int i = 0; i < count; ++i) s.tokens.push_back(next_token_++);
    check_size(s);
  }

  void truncate(std::size_t which, int part) {
    Sequence& s = pick(which);
    const int keep = s.blocks.tokens() * part / 10;
    s.blocks.truncate(keep);
    s.tokens.resize(static_cast<std::size_t>(keep));
    s.written = std::min(s.written, keep);
    check_size(s);
  }

  void fork(std::size_t which, int part) {
    const Sequence& s = pick(which);
    const int shared = s.written * part / 10;
    const int free = pool_.free_blocks();
    Sequence child(s.blocks.fork(shared));
    RC_ASSERT(pool_.free_blocks() == free);
    RC_ASSERT(child.blocks.readonly_blocks() == shared / block_len_);
    child.tokens.assign(s.tokens.begin(), s.tokens.begin() + shared);
    child.written = shared;
    check_size(child);
    sequences_.push_back(std::move(child));
  }

  void drop(std::size_t which) {
    std::swap(pick(which), sequences_.back());
    sequences_.pop_back();
  }

  void step() {
    for (const BlockCopy& c : copies_) {
      RC_ASSERT(c.tokens > 0 && c.tokens < block_len_);
      std::copy_n(row(c.from).begin(), c.tokens, row(c.to).begin());
    }
    copies_.clear();
    for (Sequence& s : sequences_) {
      for (; s.written < s.blocks.tokens(); ++s.written) {
        RC_ASSERT(s.written / block_len_ >= s.blocks.readonly_blocks());
        slot(s, s.written) = s.tokens[static_cast<std::size_t>(s.written)];
      }
    }
    for (const Sequence& s : sequences_) {
      for (int i = 0; i < s.blocks.tokens(); ++i) RC_ASSERT(slot(s, i) == s.tokens[static_cast<std::size_t>(i)]);
    }
  }

  void finish() {
    sequences_.clear();
    RC_ASSERT(pool_.used_blocks() == 0);
  }

 private:
  struct Sequence {
    explicit Sequence(SequenceBlocks b) : blocks(std::move(b)) {}
    SequenceBlocks blocks;
    std::vector<int> tokens;
    int written = 0;
  };

  Sequence& pick(std::size_t which) { return sequences_[which % sequences_.size()]; }
  std::vector<int>& row(BlockId id) { return memory_[static_cast<std::size_t>(to_index(id))]; }
  int& slot(const Sequence& s, int i) {
    return row(s.blocks.blocks()[static_cast<std::size_t>(i / block_len_)])[static_cast<std::size_t>(i % block_len_)];
  }
  void check_size(const Sequence& s) const {
    RC_ASSERT(s.blocks.tokens() == static_cast<int>(s.tokens.size()));
    RC_ASSERT(static_cast<int>(s.blocks.blocks().size()) == (s.blocks.tokens() + block_len_ - 1) / block_len_);
  }

  int block_len_;
  BlockPool pool_;
  std::vector<std::vector<int>> memory_;
  std::vector<Sequence> sequences_;
  std::vector<BlockCopy> copies_;
  int next_token_ = 0;
};

enum class Op { create, append, truncate, fork, drop, step };

RC_GTEST_PROP(SequenceBlocks, EverySequenceReadsWhatItWrote, ()) {
  const int block_len = *rc::gen::element(1, 2, 4, 5);
  const int blocks = *rc::gen::inRange(1, 24);
  const auto op = rc::gen::tuple(
      rc::gen::weightedElement<Op>(
          {{1, Op::create}, {6, Op::append}, {2, Op::truncate}, {3, Op::fork}, {1, Op::drop}, {4, Op::step}}),
      rc::gen::inRange<std::size_t>(0, 12), rc::gen::inRange(0, 11));
  const auto ops = *rc::gen::container<std::vector<std::tuple<Op, std::size_t, int>>>(op);

  Engine engine(block_len, blocks);
  for (const auto& [kind, which, amount] : ops) {
    if (kind == Op::create || engine.empty()) engine.create();
    if (kind == Op::append) engine.append(which, amount);
    if (kind == Op::truncate) engine.truncate(which, amount % 11);
    if (kind == Op::fork) engine.fork(which, amount % 11);
    if (kind == Op::drop) engine.drop(which);
    if (kind == Op::step) engine.step();
  }
  engine.step();
  engine.finish();
}

TEST(SequenceBlocks, SharedPartialBlockIsCopiedOnce) {
  BlockPool pool(layout_of(4), 8);
  SequenceBlocks parent(pool);
  ASSERT_TRUE(parent.append(6));
  SequenceBlocks child = parent.fork(6);
  EXPECT_EQ(pool.used_blocks(), 2);
  EXPECT_EQ(child.readonly_blocks(), 1);
  EXPECT_EQ(child.blocks_for(1), 1);

  const auto appended = child.append(1);
  ASSERT_TRUE(appended && appended->copy);
  EXPECT_EQ(appended->copy->from, parent.blocks()[1]);
  EXPECT_EQ(appended->copy->to, child.blocks()[1]);
  EXPECT_EQ(appended->copy->tokens, 2);
  EXPECT_EQ(child.blocks()[0], parent.blocks()[0]);

  // Nobody shares the parent's last block any more.
  EXPECT_EQ(parent.blocks_for(2), 0);
  const auto grown = parent.append(2);
  ASSERT_TRUE(grown);
  EXPECT_FALSE(grown->copy);
}

TEST(SequenceBlocks, FullSharedBlocksAreNotCopied) {
  BlockPool pool(layout_of(4), 8);
  SequenceBlocks parent(pool);
  ASSERT_TRUE(parent.append(8));
  SequenceBlocks child = parent.fork(8);
  const auto appended = child.append(1);
  ASSERT_TRUE(appended);
  EXPECT_FALSE(appended->copy);
  EXPECT_EQ(pool.used_blocks(), 3);
}

TEST(SequenceBlocks, ExhaustionChangesNothing) {
  BlockPool pool(layout_of(4), 2);
  SequenceBlocks s(pool);
  ASSERT_TRUE(s.append(3));
  EXPECT_FALSE(s.append(6));
  EXPECT_EQ(s.tokens(), 3);
  EXPECT_EQ(s.blocks().size(), 1U);
  EXPECT_EQ(pool.free_blocks(), 1);
  EXPECT_TRUE(s.append(5));
  EXPECT_EQ(pool.free_blocks(), 0);
}

TEST(SequenceBlocks, MovesLeaveAnEmptySequence) {
  BlockPool pool(layout_of(4), 4);
  SequenceBlocks a(pool);
  ASSERT_TRUE(a.append(5));
  SequenceBlocks b(std::move(a));
  EXPECT_EQ(a.tokens(), 0);  // NOLINT(bugprone-use-after-move): that is the promise
  EXPECT_TRUE(a.blocks().empty());
  EXPECT_EQ(b.tokens(), 5);
  SequenceBlocks c(pool);
  ASSERT_TRUE(c.append(1));
  c = std::move(b);
  EXPECT_EQ(c.tokens(), 5);
  EXPECT_EQ(pool.used_blocks(), 2);
  c.truncate(0);
  EXPECT_EQ(pool.used_blocks(), 0);
}

}  // namespace
