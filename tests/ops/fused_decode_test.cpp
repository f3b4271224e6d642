// decode() that writes the new tokens and prepares the queries itself, on the CPU: the bytes and bits of the separate
// calls.

#include <gtest/gtest.h>

#include "ops/fused_case.h"

namespace {

using ops::FusedSpec;
using pagedkv::DType;
using pagedkv::KvType;

void check(const FusedSpec& spec) {
  SCOPED_TRACE(ops::describe(spec));
  ops::FusedCase c(spec);
  c.reset();
  const ops::Result got = c.plain().run(ops::Op::decode, 2, c.fused());
  const std::vector<char> written = ops::table_blocks(c.fused());
  c.reset();
  const std::vector<char> before = ops::table_blocks(c.fused());
  if (spec.write) c.write();
  EXPECT_EQ(written, ops::table_blocks(c.fused()));
  EXPECT_EQ(written == before, !spec.write);
  EXPECT_EQ(got.bits, c.plain().run(ops::Op::decode, 1, c.rest()).bits);
}

FusedSpec base(DType type, pagedkv::KvFormat format, int head_dim) {
  FusedSpec s;
  s.base.config.layers = 2;
  s.base.config.kv_heads = 2;
  s.base.config.head_dim = head_dim;
  s.base.config.block_len = 16;
  s.base.config.dtype = type;
  s.base.config.format = format;
  s.base.q_heads = 4;
  s.base.lengths = {{1, 1, 0}, {1, 16, 1}, {3, 17, 2}, {0, 5, 3}, {16, 40, 4}, {1, 530, 5}};
  return s;
}

TEST(FusedDecode, TypesFormatsAndRope) {
  int i = 0;
  for (const DType type : {DType::f16, DType::bf16, DType::f32}) {
    for (const KvType k : {KvType::same, KvType::int8, KvType::int4}) {
      for (const KvType v : {KvType::same, KvType::int8, KvType::int4}) {
        FusedSpec s = base(type, {k, v}, i % 2 == 0 ? 64 : 128);
        ops::set_all(s, i++);
        check(s);
      }
    }
  }
}

TEST(FusedDecode, ReadonlyBlocksRanksAndSharedRows) {
  FusedSpec s = base(DType::f16, {KvType::int8, KvType::int4}, 64);
  s.readonly_blocks = 2;
  check(s);
  s.readonly_blocks = 0;
  for (const int rank : {0, 2}) {
    s.base.cp = {rank, 3, 2};
    check(s);
  }
  s = base(DType::bf16, {KvType::int8, KvType::int8}, 64);
  s.base.config.shared_kv = true;
  s.base.v_dim = 48;
  s.base.v_offset = 16;
  ops::set_rope(s, 3);
  s.rotate_q = true;
  check(s);
}

/// Nothing is written for a finished sequence, and the others are as without it.
TEST(FusedDecode, FinishedSequencesAreNotWritten) {
  FusedSpec s = base(DType::f16, {KvType::int8, KvType::int4}, 64);
  s.base.finished = {0, 0, 1, 0, 1, 0};
  s.q_bias = true;
  ops::FusedCase c(s);
  c.reset();
  const std::vector<char> before = ops::table_blocks(c.fused());
  const ops::Result got = c.plain().run(ops::Op::decode, 2, c.fused());
  const std::vector<char> after = ops::table_blocks(c.fused());
  c.write();
  const std::vector<char> all = ops::table_blocks(c.fused());
  const pagedkv::AttentionArgs args = c.fused();
  for (std::size_t b = 0; b < s.base.lengths.size(); ++b) {
    const auto bytes = [&](const std::vector<char>& blocks) {
      const auto at = [&](std::size_t x) { return blocks.begin() + args.table.cu_blocks[x] * args.layout.block_bytes; };
      return std::vector<char>(at(b), at(b + 1));
    };
    EXPECT_EQ(bytes(after), bytes(s.base.finished[b] != 0 ? before : all)) << b;
  }
  EXPECT_EQ(got.bits, c.plain().run(ops::Op::decode, 1, c.rest()).bits);
}

TEST(FusedDecode, QueriesAlone) {
  FusedSpec s = base(DType::bf16, {}, 64);
  s.write = false;
  s.q_bias = true;
  check(s);
  ops::set_rope(s, 0);
  s.rotate_q = true;
  check(s);
}

}  // namespace
