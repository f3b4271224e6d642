// BlockPool against a model that counts references in a map.

#include "pagedkv/block_pool.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>
#include <rapidcheck/state.h>

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "pagedkv/cache_config.h"
#include "pagedkv/error.h"

namespace {

using pagedkv::BlockId;
using pagedkv::BlockPool;
using pagedkv::Error;
using pagedkv::ErrorCode;

pagedkv::BlockLayout small_layout() {
  pagedkv::CacheConfig c;
  c.head_dim = 16;
  c.block_len = 1;
  return make_layout(c);
}

constexpr int kBlocks = 7;

struct Model {
  std::map<int, int> references;  // of the blocks in use
  std::vector<int> free;          // a stack: the block freed last is allocated first

  Model() {
    for (int i = kBlocks - 1; i >= 0; --i) free.push_back(i);
  }
  int take() {
    const int id = free.back();
    free.pop_back();
    references[id] = 1;
    return id;
  }
};

using Command = rc::state::Command<Model, BlockPool>;

void check_counts(const Model& m, const BlockPool& pool) {
  RC_ASSERT(pool.free_blocks() == static_cast<int>(m.free.size()));
  RC_ASSERT(pool.used_blocks() == static_cast<int>(m.references.size()));
  for (int i = 0; i < kBlocks; ++i) {
    const auto it = m.references.find(i);
    RC_ASSERT(pool.references(BlockId{i}) == (it == m.references.end() ? 0 : it->second));
  }
}

struct Allocate : Command {
  std::size_t count = *rc::gen::inRange<std::size_t>(0, kBlocks + 2);

  void apply(Model& m) const override {
    if (count > m.free.size()) return;
    for (std::size_t i = 0; i < count; ++i) m.take();
  }
  void run(const Model& before, BlockPool& pool) const override {
    std::vector<BlockId> ids(count, BlockId{-1});
    const bool fits = count <= before.free.size();
    RC_ASSERT(pool.allocate(ids) == fits);
    Model after = before;
    for (const BlockId id : ids) RC_ASSERT(id == (fits ? BlockId{after.take()} : BlockId{-1}));
    check_counts(after, pool);
  }
  void show(std::ostream& os) const override { os << "allocate " << count; }
};

struct AllocateOne : Command {
  void apply(Model& m) const override {
    if (!m.free.empty()) m.take();
  }
  void run(const Model& before, BlockPool& pool) const override {
    const auto id = pool.allocate();
    RC_ASSERT(id.has_value() == !before.free.empty());
    if (id) RC_ASSERT(*id == BlockId{before.free.back()});
    check_counts(nextState(before), pool);
  }
  void show(std::ostream& os) const override { os << "allocate one"; }
};

/// Runs `change` on a block that may be free or foreign, and expects the Error that this calls for.
template <class Change>
void expect_outcome(const Model& m, int id, Change change) {
  try {
    change();
    RC_ASSERT(m.references.contains(id));
  } catch (const Error& e) {
    RC_ASSERT(!m.references.contains(id));
    const bool foreign = id < 0 || id >= kBlocks;
    RC_ASSERT(e.code() == (foreign ? ErrorCode::invalid_argument : ErrorCode::invalid_state));
  }
}

struct Retain : Command {
  int id = *rc::gen::inRange(-1, kBlocks + 1);

  void apply(Model& m) const override {
    if (const auto it = m.references.find(id); it != m.references.end()) ++it->second;
  }
  void run(const Model& before, BlockPool& pool) const override {
    expect_outcome(before, id, [&] { pool.retain(BlockId{id}); });
    check_counts(nextState(before), pool);
  }
  void show(std::ostream& os) const override { os << "retain " << id; }
};

struct Release : Command {
  int id = *rc::gen::inRange(-1, kBlocks + 1);

  void apply(Model& m) const override {
    const auto it = m.references.find(id);
    if (it == m.references.end() || --it->second > 0) return;
    m.references.erase(it);
    m.free.push_back(id);
  }
  void run(const Model& before, BlockPool& pool) const override {
    expect_outcome(before, id, [&] { pool.release(BlockId{id}); });
    check_counts(nextState(before), pool);
  }
  void show(std::ostream& os) const override { os << "release " << id; }
};

RC_GTEST_PROP(BlockPool, BehavesLikeItsModel, ()) {
  BlockPool pool(small_layout(), kBlocks);
  rc::state::check(Model(), pool, rc::state::gen::execOneOfWithArgs<Allocate, AllocateOne, Retain, Release>());
}

TEST(BlockPool, UsesMemoryOfTheCaller) {
  const auto layout = small_layout();
  const std::size_t block = static_cast<std::size_t>(layout.block_bytes);
  alignas(16) static char memory[1000];
  // 1000 bytes hold 15 blocks of 64 bytes and a rest.
  ASSERT_EQ(block, 64U);
  BlockPool pool(layout, memory, sizeof memory);
  EXPECT_EQ(pool.blocks(), 15);
  EXPECT_EQ(pool.slab(), memory);
  EXPECT_EQ(pool.layout(), layout);
  for (int i = 0; i < 15; ++i) EXPECT_EQ(pool.address(BlockId{i}), memory + 64 * i);
}

TEST(BlockPool, NeverTouchesTheMemory) {
  // An address that nothing is mapped at, as device memory is to the host.
  auto* nowhere = reinterpret_cast<void*>(std::uintptr_t{1} << 46);
  BlockPool pool(small_layout(), nowhere, std::size_t{1} << 20);
  const auto a = pool.allocate();
  const auto b = pool.allocate();
  ASSERT_TRUE(a && b);
  pool.retain(*a);
  pool.release(*a);
  pool.release(*a);
  EXPECT_EQ(pool.address(*b), static_cast<char*>(nowhere) + 64);
}

TEST(BlockPool, OwnMemoryIsAlignedAndWritable) {
  for (const int blocks : {1, 2, 33}) {
    BlockPool pool(small_layout(), blocks);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool.slab()) % 64, 0U);
    std::set<char*> addresses;
    while (const auto id = pool.allocate()) {
      std::fill_n(pool.address(*id), 64, 'x');
      addresses.insert(pool.address(*id));
    }
    EXPECT_EQ(addresses.size(), static_cast<std::size_t>(blocks));
  }
}

TEST(BlockPool, ErrorsNameTheBlock) {
  BlockPool pool(small_layout(), 3);
  const auto message = [](auto&& call) -> std::string {
    try {
      call();
    } catch (const Error& e) {
      return e.what();
    }
    return "no Error";
  };
  EXPECT_EQ(message([&] { pool.release(BlockId{2}); }),
            "pagedkv: invalid state: BlockPool: block = 2, which is free; accepted: a block that is in use");
  EXPECT_EQ(message([&] { pool.retain(BlockId{3}); }),
            "pagedkv: invalid argument: BlockPool: block = 3; accepted: 0 .. 2");
}

}  // namespace
