// What a cache holds of a sequence depends on that sequence alone: not on physical blocks, neighbours, chunks, block
// length, strides, tables, threads or SIMD target; and the ranks of a context-parallel group hold what one rank would.

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "ops/generate.h"

namespace {

using support::Arrangement;
using support::Cache;
using support::Chunk;
using support::Content;
using support::Random;

Content any_content(Random& random) {
  const support::Spice spice{random.chance(3), random.chance(2), random.chance(2)};
  const pagedkv::CacheConfig config = generate::config();
  return make_content(config, generate::lengths(), spice, random);
}

/// Bytes of every row of a sequence, in the order of its positions.
std::vector<std::vector<unsigned char>> rows_of(const Cache& cache, const Content& c, int sequence) {
  std::vector<std::vector<unsigned char>> rows;
  const int locals = static_cast<int>(cache.positions(sequence).size());
  for (int local = 0; local < locals; ++local) {
    for (int head = 0; head < c.config.kv_heads; ++head) {
      for (const oracle::Side side : {oracle::Side::key, oracle::Side::value}) {
        rows.push_back(cache.bytes(sequence, head, side, local));
      }
    }
  }
  return rows;
}

void assert_same_rows(const Cache& a, const Cache& b, const Content& c) {
  for (int sequence = 0; sequence < c.batch(); ++sequence) {
    RC_ASSERT(rows_of(a, c, sequence) == rows_of(b, c, sequence));
  }
}

Cache written(const Content& content, const Arrangement& arrangement) {
  Cache cache(content, arrangement);
  cache.write_all(generate::write_kv());
  return cache;
}

RC_GTEST_PROP(Invariance, PhysicalBlocksDoNotMatter, ()) {
  Random random = generate::random();
  Content content = any_content(random);
  content.cp = generate::context_parallel();
  Arrangement arrangement = Arrangement::random(generate::block_lens(), random);
  const Cache a = written(content, arrangement);
  arrangement.seed = random.bits();
  const Cache b = written(content, arrangement);
  assert_same_rows(a, b, content);
}

RC_GTEST_PROP(Invariance, BlockLengthStridesAndTablesDoNotMatter, ()) {
  Random random = generate::random();
  Content content = any_content(random);
  content.cp = generate::context_parallel();
  const Cache a = written(content, Arrangement::random(generate::block_lens(), random));
  const Cache b = written(content, Arrangement::random(generate::block_lens(), random));
  assert_same_rows(a, b, content);
}

RC_GTEST_PROP(Invariance, ChunksAndNeighboursDoNotMatter, ()) {
  Random random = generate::random();
  Content content = any_content(random);
  content.cp = generate::context_parallel();
  const Arrangement arrangement = Arrangement::random(generate::block_lens(), random);
  const Cache whole = written(content, arrangement);

  // The same tokens in calls of any composition: each takes some sequences, in any order, a few tokens further.
  Cache pieces(content, arrangement);
  const support::WriteKv write_kv = generate::write_kv();
  std::vector<int> done(content.lengths.size(), 0);
  while (done != content.lengths) {
    std::vector<Chunk> chunks;
    for (int b = 0; b < content.batch(); ++b) {
      int& from = done[static_cast<std::size_t>(b)];
      if (random.chance(3)) continue;
      const int to = from + random.integer(0, content.lengths[static_cast<std::size_t>(b)] - from);
      chunks.push_back({b, from, to});
      from = to;
    }
    random.shuffle(chunks);
    pieces.write(write_kv, chunks);
  }
  assert_same_rows(whole, pieces, content);
  RC_ASSERT(pieces.why_touched() == "");
}

RC_GTEST_PROP(Invariance, RanksTogetherHoldTheWhole, ()) {
  Random random = generate::random();
  Content content = any_content(random);
  const Cache whole = written(content, Arrangement::random(generate::block_lens(), random));

  Content part = content;
  part.cp.size = *rc::gen::element(1, 2, 3, 4, 8).as("cp.size");
  part.cp.interleave = *rc::gen::element(1, 4, 16).as("cp.interleave");
  std::vector<std::vector<int>> owners;
  for (const int length : content.lengths) owners.emplace_back(static_cast<std::size_t>(length), 0);
  for (part.cp.rank = 0; part.cp.rank < part.cp.size; ++part.cp.rank) {
    const Cache cache = written(part, Arrangement::random(generate::block_lens(), random));
    RC_ASSERT(cache.why_touched() == "");
    for (int sequence = 0; sequence < content.batch(); ++sequence) {
      const std::vector<int> positions = cache.positions(sequence);
      for (std::size_t local = 0; local < positions.size(); ++local) {
        ++owners[static_cast<std::size_t>(sequence)][static_cast<std::size_t>(positions[local])];
        for (int head = 0; head < content.config.kv_heads; ++head) {
          for (const oracle::Side side : {oracle::Side::key, oracle::Side::value}) {
            RC_ASSERT(cache.bytes(sequence, head, side, static_cast<int>(local)) ==
                      whole.bytes(sequence, head, side, positions[local]));
          }
        }
      }
    }
  }
  for (const auto& sequence : owners) {
    RC_ASSERT(std::all_of(sequence.begin(), sequence.end(), [](int n) { return n == 1; }));
  }
}

/// Goes back to the target that was in use.
class TargetScope {
 public:
  TargetScope() : before_(pagedkv::cpu::target()) {}
  ~TargetScope() { pagedkv::cpu::set_target(before_); }
  TargetScope(const TargetScope&) = delete;
  TargetScope& operator=(const TargetScope&) = delete;

 private:
  std::string before_;
};

RC_GTEST_PROP(Invariance, SimdTargetsAndThreadsDoNotMatter, ()) {
  const TargetScope restore;
  Random random = generate::random();
  Content content = any_content(random);
  content.cp = generate::context_parallel();
  const Arrangement arrangement = Arrangement::random(generate::block_lens(), random);
  pagedkv::cpu::set_target("scalar");
  const Cache expected = written(content, arrangement);
  for (const std::string_view target : pagedkv::cpu::targets()) {
    pagedkv::cpu::set_target(target);
    Cache cache = written(content, arrangement);
    assert_same_rows(expected, cache, content);
    RC_ASSERT(cache.why_flatten_wrong(generate::flatten_kv(), support::RowOrder::packed, false) == "");
  }
}

}  // namespace
