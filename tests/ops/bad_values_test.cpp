// The same walk through the functions that describe a cache and manage its blocks.

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ops/bad_arguments.h"
#include "pagedkv/block_pool.h"
#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"

namespace {

using namespace bad_arguments;
using pagedkv::BlockId;
using pagedkv::BlockPool;
using pagedkv::CacheConfig;
using pagedkv::DType;
using pagedkv::KvType;
using pagedkv::MropeMode;
using pagedkv::RopePairs;
using pagedkv::RopeParams;
using pagedkv::RopeType;
using pagedkv::SequenceBlocks;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();

TEST(BadArguments, MakeLayout) {
  const auto config = [](std::string field, std::string value, std::string accepted, void (*spoil)(CacheConfig&)) {
    return bad_call("CacheConfig." + field, std::move(value), std::move(accepted), [spoil] {
      CacheConfig c;
      spoil(c);
      make_layout(c);
    });
  };
  const std::string aligned = ", so that each region of this format starts 16-byte aligned";
  EXPECT_NO_THROW(make_layout(CacheConfig()));
  expect_errors({
      config("layers", "0", "1 .. 65536", [](CacheConfig& c) { c.layers = 0; }),
      config("layers", "65537", "1 .. 65536", [](CacheConfig& c) { c.layers = 65537; }),
      config("kv_heads", "-8", "1 .. 65536", [](CacheConfig& c) { c.kv_heads = -8; }),
      config("kv_heads", "65537", "1 .. 65536", [](CacheConfig& c) { c.kv_heads = 65537; }),
      config("head_dim", "0", "16 .. 1024", [](CacheConfig& c) { c.head_dim = 0; }),
      config("head_dim", "1040", "16 .. 1024", [](CacheConfig& c) { c.head_dim = 1040; }),
      config("head_dim", "100", "a multiple of 16", [](CacheConfig& c) { c.head_dim = 100; }),
      config("block_len", "0", "1 .. 65536", [](CacheConfig& c) { c.block_len = 0; }),
      config("block_len", "65537", "1 .. 65536", [](CacheConfig& c) { c.block_len = 65537; }),
      config("block_len", "6", "a multiple of 4" + aligned,
             [](CacheConfig& c) {
               c.block_len = 6;
               c.format.v = KvType::int8;
             }),
      config("block_len", "5", "a multiple of 2" + aligned,
             [](CacheConfig& c) {
               c.block_len = 5;
               c.dtype = DType::f32;
               c.format.k = KvType::int8;
             }),
      config("dtype", "99", "f32, f16 or bf16", [](CacheConfig& c) { c.dtype = no_such<DType>(); }),
      config("format.k", "99", "same, int8 or int4", [](CacheConfig& c) { c.format.k = no_such<KvType>(); }),
      config("format.v", "99", "same, int8 or int4", [](CacheConfig& c) { c.format.v = no_such<KvType>(); }),
      config("layout", "99", "turbomind", [](CacheConfig& c) { c.layout = no_such<pagedkv::LayoutKind>(); }),
      config("format.v", "int8", "same, the type of the keys, because shared_kv stores one row for both",
             [](CacheConfig& c) {
               c.shared_kv = true;
               c.format.v = KvType::int8;
             }),
      bad_call("quant_policy", "16", "0, 4 or 8", [] { pagedkv::format_from_quant_policy(16); }),
      bad_call("quant_policy", "-4", "0, 4 or 8", [] { pagedkv::format_from_quant_policy(-4); }),
  });
}

/// make_rope_table() with one field of the given type's parameters spoilt.
BadArgument rope(std::string field, std::string value, std::string accepted, RopeType type,
                 std::function<void(RopeParams&)> spoil) {
  return bad_call("RopeParams." + field, std::move(value), std::move(accepted), [type, spoil = std::move(spoil)] {
    RopeParams p;
    p.type = type;
    p.dim = 64;
    p.factor = 4;
    p.original_max_position = 4096;
    spoil(p);
    make_rope_table(p, 128);
  });
}

TEST(BadArguments, MakeRopeTable) {
  for (const RopeType type :
       {RopeType::none, RopeType::standard, RopeType::linear, RopeType::dynamic, RopeType::yarn, RopeType::llama3}) {
    EXPECT_FALSE(rope("", "", "", type, [](RopeParams&) {}).call().error);
  }
  static constexpr float kBase[2] = {1e4F, 1e4F};
  static constexpr std::int32_t kInts[4] = {};
  const auto mrope = [](RopeParams& p) {
    p.mrope = MropeMode::chunked;
    p.mrope_section[0] = 16;
    p.mrope_section[1] = p.mrope_section[2] = 8;
    p.mrope_length = p.mrope_offsets = p.mrope_position_ids = p.mrope_delta = kInts;
  };
  EXPECT_FALSE(rope("", "", "", RopeType::standard, mrope).call().error);
  const auto with_mrope = [mrope](auto spoil) {
    return [mrope, spoil](RopeParams& p) {
      mrope(p);
      spoil(p);
    };
  };
  constexpr RopeType kStandard = RopeType::standard;
  const std::string positive = "1e-30 .. 1e+30";
  const std::string at_least_1 = "1 .. 1e+30";
  const std::string ints = "an address aligned to 4 bytes";
  expect_errors({
      bad_call("make_rope_table.head_dim", "0", "16 .. 1024", [] { make_rope_table(RopeParams(), 0); }),
      rope("type", "99", "none, standard, linear, dynamic, yarn or llama3", no_such<RopeType>(), [](RopeParams&) {}),
      rope("pairs", "99", "interleaved or half_split", kStandard,
           [](RopeParams& p) { p.pairs = no_such<RopePairs>(); }),
      rope("dim", "0", "8 .. 128", kStandard, [](RopeParams& p) { p.dim = 0; }),
      rope("dim", "136", "8 .. 128", kStandard, [](RopeParams& p) { p.dim = 136; }),
      rope("dim", "20", "a multiple of 8", kStandard, [](RopeParams& p) { p.dim = 20; }),
      rope("dim", "24", "a multiple of 16", kStandard,
           [](RopeParams& p) {
             p.dim = 24;
             p.pairs = RopePairs::half_split;
           }),
      rope("base", "0.5", at_least_1, kStandard, [](RopeParams& p) { p.base = 0.5; }),
      rope("base", "nan", at_least_1, kStandard, [](RopeParams& p) { p.base = kNan; }),
      rope("factor", "0", positive, RopeType::linear, [](RopeParams& p) { p.factor = 0; }),
      rope("factor", "0.5", at_least_1, RopeType::yarn, [](RopeParams& p) { p.factor = 0.5; }),
      rope("factor", "inf", at_least_1, RopeType::llama3, [](RopeParams& p) { p.factor = INFINITY; }),
      rope("original_max_position", "0", "at least 1", RopeType::yarn,
           [](RopeParams& p) { p.original_max_position = 0; }),
      rope("original_max_position", "-1", "at least 1", RopeType::llama3,
           [](RopeParams& p) { p.original_max_position = -1; }),
      rope("base", "1", "1.000001 .. 1e+30", RopeType::yarn, [](RopeParams& p) { p.base = 1; }),
      rope("attention_factor", "-1", "0 .. 1e+30", RopeType::yarn, [](RopeParams& p) { p.attention_factor = -1; }),
      rope("beta_slow", "0", positive, RopeType::yarn, [](RopeParams& p) { p.beta_slow = 0; }),
      rope("beta_fast", "0.5", at_least_1, RopeType::yarn, [](RopeParams& p) { p.beta_fast = 0.5; }),
      rope("low_freq_factor", "-1", "0 .. 1e+30", RopeType::llama3, [](RopeParams& p) { p.low_freq_factor = -1; }),
      rope("high_freq_factor", "0.5", at_least_1, RopeType::llama3, [](RopeParams& p) { p.high_freq_factor = 0.5; }),
      rope("high_freq_factor", "1", "more than low_freq_factor = 1", RopeType::llama3,
           [](RopeParams& p) { p.high_freq_factor = 1; }),
      rope("dynamic_base", "*", "null unless type is dynamic", kStandard,
           [](RopeParams& p) { p.dynamic_base = kBase; }),
      rope("dynamic_base", "*", "null or an address aligned to 4 bytes", RopeType::dynamic,
           [](RopeParams& p) { p.dynamic_base = misaligned(kBase); }),
      rope("mrope", "99", "none, chunked or interleaved", kStandard,
           [](RopeParams& p) { p.mrope = no_such<MropeMode>(); }),
      rope("mrope_section[2]", "33", "0 .. 32", kStandard, with_mrope([](RopeParams& p) { p.mrope_section[2] = 33; })),
      rope("mrope_section", "a sum of 31", "a sum of 32, dim / 2", kStandard,
           with_mrope([](RopeParams& p) { --p.mrope_section[0]; })),
      rope("mrope_length", "*", "null or " + ints, kStandard,
           with_mrope([](RopeParams& p) { p.mrope_length = misaligned(kInts); })),
      rope("mrope_delta", "*", "null or " + ints, kStandard,
           with_mrope([](RopeParams& p) { p.mrope_delta = misaligned(kInts); })),
      rope("mrope_offsets", "null", ints, kStandard, with_mrope([](RopeParams& p) { p.mrope_offsets = nullptr; })),
      rope("mrope_position_ids", "null", ints, kStandard,
           with_mrope([](RopeParams& p) { p.mrope_position_ids = nullptr; })),
  });
}

TEST(BadArguments, DynamicRopeBase) {
  const auto call = [](std::string field, std::string value, std::string accepted, double base, double factor, int dim,
                       int most, int prompt) {
    return bad_call("dynamic_rope_base." + field, std::move(value), std::move(accepted),
                    [=] { pagedkv::dynamic_rope_base(base, factor, dim, most, prompt); });
  };
  EXPECT_NO_THROW(pagedkv::dynamic_rope_base(1e4, 2, 64, 4096, 8192));
  expect_errors({
      call("base", "0.5", "1 .. 1e30", 0.5, 2, 64, 4096, 8192),
      call("factor", "nan", "1 .. 1e30", 1e4, kNan, 64, 4096, 8192),
      call("dim", "2", "4 .. 256", 1e4, 2, 2, 4096, 8192),
      call("original_max_position", "0", "at least 1", 1e4, 2, 64, 0, 8192),
      call("prompt_len", "-1", "at least 0", 1e4, 2, 64, 4096, -1),
  });
}

TEST(BadArguments, BlockPool) {
  alignas(16) static char memory[1024];
  const pagedkv::BlockLayout layout = make_layout(CacheConfig{.head_dim = 16, .block_len = 4});  // 256 bytes
  const pagedkv::BlockLayout huge = make_layout(
      CacheConfig{.layers = 65536, .kv_heads = 65536, .head_dim = 1024, .block_len = 65536, .dtype = DType::f32});
  const std::string bytes = "memory for 1 .. 2147483647 blocks of 256 bytes";
  expect_errors({
      bad_call("BlockPool.layout.layers", "0", "1 .. 65536", [] { BlockPool pool({}, 4); }),
      bad_call("BlockPool.layout.layers", "0", "1 .. 65536", [] { BlockPool pool({}, memory, sizeof memory); }),
      bad_call("BlockPool.blocks", "0", "1 .. 2147483647", [&] { BlockPool pool(layout, 0); }),
      bad_call("BlockPool.blocks", "-1", "1 .. 2147483647", [&] { BlockPool pool(layout, -1); }),
      bad_call("BlockPool.blocks", "4", "1 .. 3", [&] { BlockPool pool(huge, 4); }),
      bad_call("BlockPool.slab", "null", "an address aligned to 16 bytes",
               [&] { BlockPool pool(layout, nullptr, sizeof memory); }),
      bad_call("BlockPool.slab", "*", "an address aligned to 16 bytes",
               [&] { BlockPool pool(layout, memory + 8, 512); }),
      bad_call("BlockPool.slab_bytes", "255", bytes, [&] { BlockPool pool(layout, memory, 255); }),
      bad_call("BlockPool.slab_bytes", "549755813888", bytes,
               [&] { BlockPool pool(layout, memory, std::size_t{1} << 39); }),
  });

  BlockPool pool(layout, memory, sizeof memory);
  ASSERT_EQ(pool.blocks(), 4);
  for (const int foreign : {-1, 4, kMost}) {
    const BlockId id{foreign};
    const std::string value = std::to_string(foreign);
    expect_errors({
        bad_call("BlockPool: block", value, "0 .. 3", [&] { pool.retain(id); }),
        bad_call("BlockPool: block", value, "0 .. 3", [&] { pool.release(id); }),
        bad_call("BlockPool: block", value, "0 .. 3", [&] { pool.references(id); }),
        bad_call("BlockPool: block", value, "0 .. 3", [&] { pool.address(id); }),
    });
  }
  EXPECT_EQ(pool.free_blocks(), 4);
}

TEST(BadArguments, SequencesAndTables) {
  BlockPool pool(make_layout(CacheConfig{.head_dim = 16, .block_len = 4}), 4);
  SequenceBlocks s(pool);
  ASSERT_TRUE(s.append(6));
  const std::array<BlockId, 1> foreign = {BlockId{4}};
  const std::array<BlockId, 1> unused = {BlockId{3}};
  const std::vector<std::span<const BlockId>> with_foreign = {s.blocks(), foreign};
  const std::vector<std::span<const BlockId>> with_unused = {unused};
  expect_errors({
      bad_call("SequenceBlocks.tokens", "-1", "0 .. 2147483641", [&] { s.append(-1); }),
      bad_call("SequenceBlocks.tokens", "2147483647", "0 .. 2147483641", [&] { s.append(kMost); }),
      bad_call("SequenceBlocks.tokens", "-1", "0 .. 2147483641", [&] { s.blocks_for(-1); }),
      bad_call("SequenceBlocks.tokens", "-1", "0 .. 6", [&] { s.truncate(-1); }),
      bad_call("SequenceBlocks.tokens", "7", "0 .. 6", [&] { s.truncate(7); }),
      bad_call("SequenceBlocks.tokens", "7", "0 .. 6", [&] { s.fork(7); }),
      bad_call("sequences[1][0]", "block 4", "a block in use of the pool's 0 .. 3",
               [&] { make_batch_table(pool, with_foreign); }),
  });
  try {
    make_batch_table(pool, with_unused);
    ADD_FAILURE() << "no Error";
  } catch (const pagedkv::Error& e) {
    EXPECT_EQ(std::string(e.what()),
              "pagedkv: invalid state: sequences[0][0] = block 3, which is free; accepted: a block in use of the "
              "pool's 0 .. 3");
  }
  EXPECT_EQ(s.tokens(), 6);
  EXPECT_EQ(pool.free_blocks(), 2);
}

TEST(BadArguments, LocalTokens) {
  expect_errors({
      bad_call("local_tokens.cp.size", "0", "1 .. 65536", [] { pagedkv::local_tokens({.size = 0}, 5); }),
      bad_call("local_tokens.cp.rank", "1", "0 .. 0", [] { pagedkv::local_tokens({.rank = 1}, 5); }),
      bad_call("local_tokens.cp.interleave", "0", "1 .. 1073741824",
               [] { pagedkv::local_tokens({.interleave = 0}, 5); }),
      bad_call("local_tokens.length", "-1", "at least 0", [] { pagedkv::local_tokens({}, -1); }),
  });
}

TEST(BadArguments, SimdTarget) {
  const std::string before(pagedkv::cpu::target());
  EXPECT_THROW(pagedkv::cpu::set_target("abacus"), pagedkv::Error);
  EXPECT_EQ(pagedkv::cpu::target(), before);
}

}  // namespace
