// decode() that writes the new tokens and prepares the queries itself, on the device: bytes and bits of the separate
// calls.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/decode/decode_case.h"
#include "cuda/device_ops.h"
#include "ops/fused_case.h"
#include "pagedkv/error.h"

namespace {

using decode_test::Call;
using ops::FusedSpec;
using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;

constexpr KvType kFormats[] = {KvType::same, KvType::int8, KvType::int4};

FusedSpec base(DType type, KvFormat format, int head_dim, int q_heads = 4, int kv_heads = 2) {
  FusedSpec s;
  s.base.config.layers = 2;
  s.base.config.kv_heads = kv_heads;
  s.base.config.head_dim = head_dim;
  s.base.config.block_len = 64;
  s.base.config.dtype = type;
  s.base.config.format = format;
  s.base.q_heads = q_heads;
  // New tokens in one tile, across tiles, blocks and splits, alone, and none.
  s.base.lengths = {{1, 1, 0}, {1, 64, 1}, {2, 65, 2}, {0, 5, 3}, {16, 16, 4}, {9, 261, 5}, {4, 2050, 6}, {1, 1025, 7}};
  return s;
}

void check(const FusedSpec& spec, Call call = {}) {
  SCOPED_TRACE(ops::describe(spec));
  ops::FusedCase c(spec);
  c.reset();
  std::vector<char> written[2];
  ops::Result got[2];
  call.mrope_rows = c.mrope_rows();
  for (const bool ahead : {false, true}) {
    call.args = c.fused();
    call.args->read_ahead = ahead;
    call.blocks = &written[ahead];
    got[ahead] = decode_test::run(c.plain(), call);
  }
  if (spec.write) c.write();
  call.args = c.rest();
  call.blocks = nullptr;
  const ops::Result want = decode_test::run(c.plain(), call);
  for (const bool ahead : {false, true}) {
    SCOPED_TRACE(ahead ? "read_ahead" : "");
    ASSERT_EQ(written[ahead], ops::table_blocks(c.fused()));
    ASSERT_EQ(got[ahead].o, want.o);
    ASSERT_EQ(got[ahead].lse, want.lse);
  }
}

TEST(GpuFusedDecode, TypesFormatsAndRope) {
  PAGEDKV_NEEDS_DEVICE();
  int i = 0;
  for (const DType type : {DType::f16, DType::bf16}) {
    for (const KvType k : kFormats) {
      for (const KvType v : kFormats) {
        FusedSpec s = base(type, {k, v}, i % 2 == 0 ? 128 : 64);
        ops::set_all(s, i++);
        check(s);
      }
    }
  }
}

TEST(GpuFusedDecode, RopeKinds) {
  PAGEDKV_NEEDS_DEVICE();
  for (int i = 0; i < 12; ++i) {
    const KvType k = kFormats[i % 3];
    FusedSpec s = base(i % 2 == 0 ? DType::bf16 : DType::f16, {k, k}, 128, 2, 1);
    s.base.lengths = {{3, 200, 0}, {16, 300, 1}};
    ops::set_rope(s, i);
    s.rotate_q = true;
    check(s);
  }
}

TEST(GpuFusedDecode, HeadDims) {
  PAGEDKV_NEEDS_DEVICE();
  int i = 0;
  for (const int dim : {64, 96, 192, 256}) {
    for (const KvType k : kFormats) {
      FusedSpec s = base(i % 2 == 0 ? DType::f16 : DType::bf16, {k, k}, dim, 2, 1);
      s.base.lengths = {{1, 70, 0}, {16, 140, 1}, {5, 131, 2}};
      ops::set_rope(s, i++);
      s.rotate_q = true;
      s.v_bias = true;
      check(s);
    }
  }
}

/// Several tiles of queries read the new tokens.
TEST(GpuFusedDecode, HeadRatiosAndBlockLengths) {
  PAGEDKV_NEEDS_DEVICE();
  int i = 0;
  for (const int q_heads : {1, 5, 16, 33}) {
    for (const KvType k : kFormats) {
      FusedSpec s = base(DType::f16, {k, k}, 64, q_heads, 1);
      s.base.config.block_len = 16 << (i % 4);
      s.base.lengths = {{1, 16, 0}, {16, 530, 1}, {7, 135, 2}};
      ops::set_rope(s, i++);
      s.rotate_q = true;
      check(s);
    }
  }
}

TEST(GpuFusedDecode, SharedRows) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    FusedSpec s = base(k == KvType::int8 ? DType::bf16 : DType::f16, {k, k}, 576, 16, 1);
    s.base.config.shared_kv = true;
    s.base.v_dim = 512;
    s.base.v_offset = 64;
    s.base.lengths = {{1, 1, 0}, {2, 130, 1}};
    s.rope = pagedkv::RopeType::yarn;
    s.pairs = k == KvType::int4 ? pagedkv::RopePairs::half_split : pagedkv::RopePairs::interleaved;
    s.rope_dim = 64;
    s.rotate_q = true;
    s.k_bias = true;
    check(s);
  }
}

TEST(GpuFusedDecode, ReadonlyBlocksRanksAndWindows) {
  PAGEDKV_NEEDS_DEVICE();
  FusedSpec s = base(DType::f16, {KvType::int8, KvType::int4}, 64, 2, 1);
  s.base.config.block_len = 16;
  s.base.window = 40;
  check(s);
  s.readonly_blocks = 1;
  check(s);
  s.readonly_blocks = 16;
  check(s);
  s.readonly_blocks = 0;
  s.base.o_is_f32 = true;
  for (const int rank : {0, 2}) {
    for (const int interleave : {1, 2, 16}) {
      s.base.cp = {rank, 3, interleave};
      check(s);
    }
  }
}

TEST(GpuFusedDecode, RowsThatQuantiseBadly) {
  PAGEDKV_NEEDS_DEVICE();
  for (const std::uint32_t spoiled : {1U, 2U}) {
    for (const KvType k : kFormats) {
      FusedSpec s = base(DType::f16, {k, k}, 128, 2, 1);
      s.spoiled = spoiled;
      s.base.lengths = {{16, 40, 0}};
      check(s);
    }
  }
}

/// Splits of 1280 tokens: new tokens in the last two of them, one that begins the last, and one that makes the sequence
/// long enough for them.
TEST(GpuFusedDecode, LongSplits) {
  PAGEDKV_NEEDS_DEVICE();
  for (const auto& [k, lengths] : {std::pair{KvType::int8, ops::Lengths{3, 52 * 1280 + 2, 0}},
                                   {KvType::int4, {1, 52 * 1280 + 1, 1}},
                                   {KvType::int4, {1, 65537, 2}}}) {
    FusedSpec s = base(DType::f16, {k, k}, 64, 3, 1);
    s.base.lengths = {lengths};
    s.base.scale = 1.0F;
    ops::set_rope(s, 0);
    s.rotate_q = true;
    check(s);
  }
}

TEST(GpuFusedDecode, QueriesAlone) {
  PAGEDKV_NEEDS_DEVICE();
  for (const DType type : {DType::f16, DType::bf16}) {
    FusedSpec s = base(type, {KvType::int8, KvType::int8}, 128, 12, 1);
    s.write = false;
    s.q_bias = true;
    check(s);
    ops::set_rope(s, 0);
    s.rotate_q = true;
    check(s);
  }
}

/// A graph of one call, replayed: the second run writes the same bytes again. Stated maxima beyond the true ones.
TEST(GpuFusedDecode, Graph) {
  PAGEDKV_NEEDS_DEVICE();
  FusedSpec s = base(DType::f16, {KvType::int4, KvType::int4}, 128);
  ops::set_rope(s, 3);
  s.rotate_q = true;
  Call call;
  call.graph = true;
  call.more_k_len = 5000;
  check(s, call);
}

/// A captured graph does what the lengths on the device say when it is replayed.
TEST(GpuFusedDecode, GraphWhoseLengthsChange) {
  PAGEDKV_NEEDS_DEVICE();
  for (const bool fused : {false, true}) {
    FusedSpec s = base(DType::bf16, {KvType::int8, KvType::int8}, 128);
    s.base.lengths = {{1, 2600, 0}, {4, 300, 1}, {2, 70, 2}, {1, 1000, 3}};
    s.write = fused;
    s.rotate_q = fused;
    if (fused) ops::set_rope(s, 0);
    ops::FusedCase c(s);
    // Other lengths of the same sequences, from before those that the first replay writes.
    const std::vector<std::int32_t> cu_q = {0, 2, 3, 7, 8};
    const std::vector<std::int32_t> cu_k = {0, 900, 1190, 1255, 2200};
    Call eager;
    eager.args = c.fused();
    eager.args->cu_q = cu_q.data();
    eager.args->cu_k = cu_k.data();
    const ops::Result want = decode_test::run(c.plain(), eager);
    Call replayed;
    replayed.args = c.fused();
    replayed.graph = true;
    replayed.later_cu_q = cu_q;
    replayed.later_cu_k = cu_k;
    const ops::Result got = decode_test::run(c.plain(), replayed);
    EXPECT_EQ(got.o, want.o) << fused;
    EXPECT_EQ(got.lse, want.lse) << fused;
  }
}

TEST(GpuFusedDecode, AgainstTheOracle) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    FusedSpec s = base(DType::f16, {k, k}, 128);
    ops::set_rope(s, 4);
    s.k_bias = true;
    ops::FusedCase c(s);
    c.reset();
    Call call;
    call.args = c.fused();
    call.mrope_rows = c.mrope_rows();
    const ops::Result got = decode_test::run(c.plain(), call);
    c.write();
    decode_test::expect_close(s.base, got, c.plain().expected());
  }
}

/// Lengths that with three KV heads make more work items than the CTAs of a GPU: a CTA's new tokens belong to several
/// items, heads and sequences, some of which have none.
std::vector<ops::Lengths> many_sequences(int batch, int most_queries, int longest) {
  std::vector<ops::Lengths> lengths;
  for (int i = 0; i < batch; ++i) {
    const int k_len = i == batch / 2 ? longest : 1 + i * 37 % 60;
    const int q_len = i % 11 == 3 ? 0 : i % 7 == 5 ? std::min(most_queries, k_len) : 1;
    lengths.push_back({q_len, k_len, i % 5});
  }
  return lengths;
}

TEST(GpuFusedDecode, SeveralItemsForEachCta) {
  PAGEDKV_NEEDS_DEVICE();
  int i = 0;
  for (const auto& [k, dim, batch, most] :
       {std::tuple{KvType::same, 128, 270, 16}, {KvType::int8, 64, 270, 5}, {KvType::int4, 128, 120, 5}}) {
    FusedSpec s = base(DType::f16, {k, k}, dim, 3, 3);
    s.base.lengths = many_sequences(batch, most, 2100);
    ops::set_rope(s, i);
    s.rotate_q = true;
    s.v_bias = true;
    if (k == KvType::int4) {
      s.base.o_is_f32 = true;
      s.base.cp = {1, 2, 16};
    }
    check(s);
    i += 3;
  }
}

/// Kernels of consecutive calls overlap; none may read what an earlier one has yet to write, or overwrite what one has
/// yet to read.
void check_chain(const FusedSpec& spec, int steps) {
  SCOPED_TRACE(ops::describe(spec));
  ops::FusedCase c(spec);
  c.write();
  pagedkv::AttentionArgs fused = c.fused();
  const auto want = decode_test::run_chain(c.plain(), fused, steps, true);
  EXPECT_EQ(decode_test::run_chain(c.plain(), fused, steps, false), want);
  fused.read_ahead = true;
  EXPECT_EQ(decode_test::run_chain(c.plain(), fused, steps, false), want) << "read_ahead";
  const auto step = static_cast<std::ptrdiff_t>(want.size()) / steps;
  EXPECT_FALSE(std::equal(want.begin(), want.begin() + step, want.begin() + step)) << "steps would not show a mix-up";
}

TEST(GpuFusedDecode, CallsThatFeedEachOther) {
  PAGEDKV_NEEDS_DEVICE();
  // With one split per sequence, with several, and with more keys than the rings have room for.
  for (const int longest : {200, 600, 2500}) {
    for (const KvType k : kFormats) {
      FusedSpec s = base(DType::f16, {k, k}, 128);
      s.base.lengths = {{1, 100, 0}, {4, longest, 1}, {16, 64, 2}, {1, 1, 3}};
      ops::set_rope(s, 0);
      s.rotate_q = true;
      check_chain(s, 4);
      if (longest < 2000) continue;
      s.base.pointer_table = true;
      s.base.window = 1350;  // starts in the tile of a later warp
      check_chain(s, 2);
    }
  }
}

/// The same where three CTAs fill an SM and have several items, so that the next kernel starts late.
TEST(GpuFusedDecode, CallsThatFeedEachOtherAtHeadDim64) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    FusedSpec s = base(DType::f16, {k, k}, 64, 3, 3);
    s.base.lengths = many_sequences(140, 5, 1500);
    ops::set_rope(s, 0);
    s.rotate_q = true;
    check_chain(s, 2);
  }
}

/// decode looks at lengths before they are there, and must make nothing of what it sees but a guess: lengths of another
/// step, of other sequences, or no lengths at all.
TEST(GpuFusedDecode, LengthsThatArriveLate) {
  PAGEDKV_NEEDS_DEVICE();
  for (const auto& [fused, head_dim] : {std::pair{false, 128}, {true, 128}, {true, 64}}) {
    FusedSpec s = base(DType::f16, {KvType::int8, KvType::int4}, head_dim);
    s.base.lengths = {{1, 2600, 0}, {4, 300, 1}, {2, 70, 2}, {1, 1000, 3}};
    s.write = fused;
    s.rotate_q = fused;
    if (fused) ops::set_rope(s, 0);
    ops::FusedCase c(s);
    Call call;
    call.args = c.fused();
    const ops::Result want = decode_test::run(c.plain(), call);
    const std::vector<std::int32_t> cu_q = {0, 1, 5, 7, 8};
    struct Early {
      std::vector<std::int32_t> cu_q;
      std::vector<std::int32_t> cu_k;  // empty: the same
    };
    const Early guesses[] = {
        {{0, 0, 0, 0, 0}, {}},
        {cu_q, {}},
        {{7, -3, 1 << 30, INT32_MIN, INT32_MAX}, {}},
        {{INT32_MAX, 16, 8, 4, 2}, {}},
        // Numbers of new tokens that can be, of sequences that are longer than the stated maximum, by far and by one,
        // or have fewer tokens than new ones.
        {cu_q, {0, 1 << 29, 1 << 30, 3 << 29, INT32_MAX}},
        {cu_q, {0, 2601, 5202, 7803, 10404}},
        {cu_q, {0, 2600, 5201, 7801, 10401}},
        {cu_q, {0, 0, 3, 4, 4}},
    };
    for (const Early& early : guesses) {
      call.early_lengths = early.cu_q;
      call.early_cu_k = early.cu_k;
      const ops::Result got = decode_test::run(c.plain(), call);
      const int which = static_cast<int>(&early - guesses);
      EXPECT_EQ(got.o, want.o) << fused << ' ' << which;
      EXPECT_EQ(got.lse, want.lse) << fused << ' ' << which;
    }
  }
}

/// Room is needed for the parts of sequences that are split, and for nothing else.
TEST(GpuFusedDecode, Workspace) {
  for (const int k_len : {100, 5000}) {
    FusedSpec s = base(DType::f16, {}, 128);
    s.base.lengths = {{1, k_len, 0}};
    ops::FusedCase c(s);
    pagedkv::AttentionArgs a = c.fused();
    const std::size_t bytes = pagedkv::cuda::decode_workspace_bytes(a);
    EXPECT_EQ(bytes > 0, k_len > 128) << k_len;
    a.fuse_write = {};
    EXPECT_EQ(pagedkv::cuda::decode_workspace_bytes(a), bytes) << k_len;
  }
}

/// Nothing is written for a finished sequence, and the others are as without it.
TEST(GpuFusedDecode, FinishedSequencesAreNotWritten) {
  PAGEDKV_NEEDS_DEVICE();
  FusedSpec s = base(DType::f16, {KvType::int8, KvType::int4}, 128);
  s.base.lengths = {{1, 300, 0}, {2, 90, 1}, {1, 600, 2}};
  s.base.finished = {0, 1, 0};
  ops::FusedCase c(s);
  c.reset();
  const std::vector<char> before = ops::table_blocks(c.fused());
  std::vector<char> after;
  Call call;
  call.args = c.fused();
  call.blocks = &after;
  const ops::Result got = decode_test::run(c.plain(), call);
  c.write();
  const std::vector<char> all = ops::table_blocks(c.fused());
  const std::int32_t* cu_blocks = call.args->table.cu_blocks;
  const auto bytes = static_cast<std::size_t>(call.args->layout.block_bytes);
  ASSERT_EQ(after.size(), all.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    const auto block = static_cast<std::int32_t>(i / bytes);
    const bool finished = block >= cu_blocks[1] && block < cu_blocks[2];
    ASSERT_EQ(after[i], finished ? before[i] : all[i]) << i;
  }
  call.args = c.rest();
  call.blocks = nullptr;
  EXPECT_EQ(got.o, decode_test::run(c.plain(), call).o);
}

/// The cases above run with Validation::full as well; here it has something to find.
TEST(GpuFusedDecode, FullValidationNamesTheElement) {
  PAGEDKV_NEEDS_DEVICE();
  FusedSpec s = base(DType::f16, {}, 128);
  s.base.lengths = {{1, 100, 0}, {2, 90, 1}};
  s.rope = pagedkv::RopeType::dynamic;
  s.rope_dim = 128;
  s.own_base = true;
  ops::FusedCase c(s);
  const auto rejected = [&](auto change) {
    Call call;
    call.args = c.fused();
    change(*call.args);
    try {
      decode_test::run(c.plain(), call);
    } catch (const pagedkv::Error& e) {
      return e.argument();
    }
    return std::string("nothing");
  };
  using Args = pagedkv::AttentionArgs;
  const std::vector<std::int32_t> readonly = {0, -1};
  EXPECT_EQ(rejected([&](Args& a) { a.fuse_write.readonly_blocks = readonly.data(); }),
            "AttentionArgs.fuse_write.readonly_blocks[1]");
  const std::vector<float> bases = {1e4F, 0.5F};
  EXPECT_EQ(rejected([&](Args& a) { a.rope.base = bases.data(); }), "AttentionArgs.rope.base[1]");
  // Both sequences write into the same block.
  const std::int32_t* given = c.fused().table.indices;
  const std::vector<std::int32_t> indices = {given[0], given[1], given[2], given[1]};
  EXPECT_EQ(rejected([&](Args& a) { a.table.indices = indices.data(); }), "AttentionArgs.table.indices[3]");
}

}  // namespace
