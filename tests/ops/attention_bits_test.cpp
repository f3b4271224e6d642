// A token's output bits depend on its own query, its cache and the options alone.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/attention_case.h"
#include "ops/on_targets.h"

namespace ops {
namespace {

using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;

/// Formats and head ratios that take different paths through the kernels.
std::vector<CaseSpec> variants() {
  struct Variant {
    DType dtype;
    KvFormat format;
    int head_dim;
    int q_heads;
    int kv_heads;
  };
  constexpr Variant kVariants[] = {
      {DType::f32, {}, 64, 3, 1},
      {DType::f16, {}, 96, 4, 1},
      {DType::bf16, {}, 64, 1, 1},
      {DType::f16, {KvType::int8, KvType::int8}, 64, 9, 3},
      {DType::f16, {KvType::int4, KvType::int4}, 128, 8, 1},
      {DType::bf16, {KvType::int8, KvType::int4}, 80, 2, 1},
      {DType::f32, {KvType::int4, KvType::same}, 64, 5, 1},
  };
  std::vector<CaseSpec> specs;
  for (const Variant& v : kVariants) {
    CaseSpec s;
    s.config.dtype = v.dtype;
    s.config.format = v.format;
    s.config.head_dim = v.head_dim;
    s.config.kv_heads = v.kv_heads;
    s.config.layers = 2;
    s.q_heads = v.q_heads;
    s.o_is_f32 = true;  // shows every bit
    specs.push_back(s);
    s.window = 70;
    s.sinks = true;
    s.softcap = 5;
    specs.push_back(s);
  }
  return specs;
}

Result run(const CaseSpec& spec, Op op, int threads) {
  return Case(spec).run(op, threads);
}

class AttentionBits : public OnTarget {};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionBits, all_targets(), target_name);

TEST_P(AttentionBits, DecodeIsPrefill) {
  for (CaseSpec s : variants()) {
    SCOPED_TRACE(describe(s));
    s.lengths = {{1, 1, 0}, {16, 90, 1}, {1, 700, 2}, {5, 64, 3}};
    Case c(s);
    EXPECT_EQ(c.run(Op::decode, 2).bits, c.run(Op::prefill, 2).bits);
  }
}

TEST_P(AttentionBits, BatchNeighbours) {
  for (CaseSpec s : variants()) {
    SCOPED_TRACE(describe(s));
    const std::vector<Lengths> all = {{1, 600, 0}, {7, 130, 1}, {0, 50, 2}, {130, 130, 3}, {1, 1, 4}};
    s.lengths = all;
    const Result together = run(s, Op::prefill, 2);
    int first = 0;
    for (const Lengths& l : all) {
      s.lengths = {l};
      EXPECT_EQ(run(s, Op::prefill, 2).bits, together.tokens(first, l.q_len)) << "sequence " << l.id;
      first += l.q_len;
    }
  }
}

TEST_P(AttentionBits, Chunks) {
  for (CaseSpec s : variants()) {
    SCOPED_TRACE(describe(s));
    constexpr int kTokens = 150;
    s.lengths = {{kTokens, kTokens, 0}};
    const Result whole = run(s, Op::prefill, 2);
    for (const int chunk : {1, 16, 37, 64, 100}) {
      for (int first = chunk == 1 ? 100 : 0; first < kTokens; first += chunk) {
        const int n = std::min(chunk, kTokens - first);
        s.lengths = {{n, first + n, 0}};
        ASSERT_EQ(run(s, n <= 16 ? Op::decode : Op::prefill, 2).bits, whole.tokens(first, n))
            << "tokens " << first << " + " << n;
      }
    }
  }
}

TEST_P(AttentionBits, BlockLengthAndTable) {
  for (CaseSpec s : variants()) {
    SCOPED_TRACE(describe(s));
    s.lengths = {{1, 600, 0}, {70, 100, 1}};
    const Result reference = run(s, Op::prefill, 2);
    for (const int block_len : {4, 16, 20, 32, 64, 128, 640}) {
      s.config.block_len = block_len;
      s.block_order = static_cast<std::uint64_t>(block_len) + 7;
      s.pointer_table = block_len % 32 == 0;
      EXPECT_EQ(run(s, Op::prefill, 2).bits, reference.bits) << "block_len " << block_len;
    }
  }
}

TEST_P(AttentionBits, Threads) {
  for (CaseSpec s : variants()) {
    SCOPED_TRACE(describe(s));
    s.lengths = {{1, 1500, 0}, {20, 1100, 1}, {1, 3, 2}};
    Case c(s);
    const Result one = c.run(Op::prefill, 1);
    for (const int threads : {2, 3, 16, 64}) EXPECT_EQ(c.run(Op::prefill, threads).bits, one.bits) << threads;
  }
}

TEST_P(AttentionBits, UnusedBytes) {
  for (CaseSpec s : variants()) {
    SCOPED_TRACE(describe(s));
    s.config.block_len = 48;
    s.lengths = {{1, 601, 0}, {70, 101, 1}, {3, 3, 2}};
    Case c(s);
    const Result reference = c.run(Op::prefill, 2);
    for (const std::uint8_t byte : {std::uint8_t{0}, std::uint8_t{0xff}, std::uint8_t{0x7f}}) {
      c.fill_unused(byte);
      EXPECT_EQ(c.run(Op::prefill, 2).bits, reference.bits) << int{byte};
    }
  }
}

TEST_P(AttentionBits, NanIsSeenExactlyByThoseWhoSeeTheToken) {
  for (CaseSpec s : variants()) {
    for (const bool value : {false, true}) {
      SCOPED_TRACE(describe(s) + (value ? ": V" : ": K"));
      constexpr int kTokens = 200;
      constexpr int kDamaged = 77;
      s.lengths = {{kTokens, kTokens, 0}};
      Case c(s);
      const Result before = c.run(Op::prefill, 2);
      for (int h = 0; h < s.config.kv_heads; ++h) {
        c.store_row(0, h, value, kDamaged, std::numeric_limits<double>::quiet_NaN());
      }
      const Result after = c.run(Op::prefill, 2);
      const int row = s.q_heads * s.value_dim();
      for (int t = 0; t < kTokens; ++t) {
        if (t < kDamaged || (s.window > 0 && t - kDamaged >= s.window)) {
          ASSERT_EQ(after.tokens(t, 1), before.tokens(t, 1)) << t;
        } else {
          for (int i = 0; i < row; ++i) ASSERT_TRUE(std::isnan(after.o[static_cast<std::size_t>(t * row + i)])) << t;
        }
      }
      // And a decode of one token, whose only neighbours are its own heads.
      s.lengths = {{1, kDamaged, 0}};
      Case shorter(s);
      EXPECT_EQ(shorter.run(Op::decode, 1).bits, before.tokens(kDamaged - 1, 1));
    }
  }
}

/// A tree that is a chain gives the bits of the causal order, and a token hidden by a tree may hold anything.
TEST_P(AttentionBits, TreeMask) {
  for (CaseSpec s : variants()) {
    SCOPED_TRACE(describe(s));
    s.lengths = {{5, 133, 0}};
    Case causal(s);
    s.tree_mask = {1, 3, 7, 15, 31};
    Case chain(s);
    EXPECT_EQ(chain.run(Op::decode, 2).bits, causal.run(Op::decode, 2).bits);
    s.tree_mask = {1, 3, 5, 13, 29};  // nobody but token 1 sees it
    Case tree(s);
    const Result before = tree.run(Op::decode, 2);
    for (const bool value : {false, true}) {
      for (int h = 0; h < s.config.kv_heads; ++h) {
        tree.store_row(0, h, value, 129, std::numeric_limits<double>::quiet_NaN());
      }
      const Result after = tree.run(Op::decode, 2);
      EXPECT_EQ(after.tokens(0, 1), before.tokens(0, 1));
      EXPECT_EQ(after.tokens(2, 3), before.tokens(2, 3));
      EXPECT_NE(after.tokens(1, 1), before.tokens(1, 1));
    }
  }
}

}  // namespace
}  // namespace ops
