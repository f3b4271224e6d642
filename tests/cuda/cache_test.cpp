// write_kv and flatten_kv on the device against the CPU backend, byte for byte, over the whole kernel table.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/device_ops.h"
#include "support/cache.h"
#include "support/content.h"
#include "support/random.h"

namespace {

using pagedkv::CacheConfig;
using pagedkv::DType;
using pagedkv::FlattenKvArgs;
using pagedkv::KvFormat;
using pagedkv::KvType;
using pagedkv::WriteKvArgs;
using pagedkv::cuda::Validation;
using support::Arrangement;
using support::Cache;
using support::Content;
using support::Random;
using support::why_different;

constexpr KvType kStored[] = {KvType::same, KvType::int8, KvType::int4};

/// Writes a content in two batches and reads it back, each call on the device and on the CPU.
void compare(const Content& content, Random& random) {
  const support::DeviceCall call{random.chance(2) ? Validation::full : Validation::arguments, random.integer(0, 200)};
  const auto write = [&](const WriteKvArgs& args) { ASSERT_EQ(why_different(args, call), ""); };
  const auto flatten = [&](const FlattenKvArgs& args) { ASSERT_EQ(why_different(args, call), ""); };
  Cache cache(content, Arrangement::random({16, 20, 64}, random));
  std::vector<int> readonly;
  for (const int length : content.lengths) readonly.push_back(random.chance(4) ? random.integer(0, length / 16) : 0);
  if (random.chance(3)) cache.set_readonly_blocks(readonly);
  std::vector<support::Chunk> first;
  std::vector<support::Chunk> rest;
  for (int b = 0; b < content.batch(); ++b) {
    const int length = content.lengths[static_cast<std::size_t>(b)];
    const int cut = random.integer(0, length);
    first.push_back({b, 0, cut});
    rest.push_back({b, cut, length});
  }
  cache.write(write, first);
  cache.write(write, rest);
  ASSERT_EQ(cache.why_wrong(), "");  // the oracle agrees
  ASSERT_EQ(cache.why_touched(), "");
  ASSERT_EQ(cache.why_flatten_wrong(flatten, support::kRowOrders[random.integer(0, 3)], false), "");
  // Keys rotated twice may leave the range of T, where the oracle does not follow; the CPU's bytes are compared all the
  // same.
  cache.why_flatten_wrong(flatten, support::kRowOrders[random.integer(0, 3)], true);
  ASSERT_EQ(cache.why_touched(), "");
}

/// Batches per entry of the kernel table: PAGEDKV_TEST_ROUNDS, for where the oracle would take too long.
int rounds() {
  const char* text = std::getenv("PAGEDKV_TEST_ROUNDS");
  return text != nullptr ? std::stoi(text) : 6;
}

std::string describe(const CacheConfig& c) {
  return std::string(name(c.dtype)) + " K " + name(c.format.k) + " V " + name(c.format.v);
}

class KernelTable : public testing::TestWithParam<std::tuple<DType, int>> {};

TEST_P(KernelTable, BytesAreTheCpus) {
  PAGEDKV_NEEDS_DEVICE();
  const auto [dtype, head_dim] = GetParam();
  Random random(static_cast<std::uint64_t>(head_dim) * 2 + (dtype == DType::f16 ? 1 : 0));
  for (const KvType k : kStored) {
    for (const KvType v : kStored) {
      for (int round = 0; round < rounds(); ++round) {
        CacheConfig config;
        config.dtype = dtype;
        config.head_dim = head_dim;
        config.format = {k, v};
        config.layers = random.integer(1, 3);
        config.kv_heads = random.integer(1, 11);
        if (head_dim == 576 && round < 4) {
          if (k != v) continue;
          config.shared_kv = true;
          config.kv_heads = 1;
        }
        SCOPED_TRACE(describe(config) + " round " + std::to_string(round));
        const support::Spice spice{round % 2 == 1, random.chance(2), random.chance(4) ? false : true};
        std::vector<int> lengths(static_cast<std::size_t>(random.integer(1, 6)));
        for (int& length : lengths) length = random.chance(4) ? 0 : random.integer(1, 150);
        Content content = make_content(config, lengths, spice, random);
        content.cp.size = random.chance(2) ? 1 : random.integer(2, 4);
        content.cp.rank = random.integer(0, content.cp.size - 1);
        content.cp.interleave = random.chance(2) ? 1 : 16;
        compare(content, random);
        if (HasFatalFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, KernelTable,
                         testing::Combine(testing::Values(DType::f16, DType::bf16),
                                          testing::Values(64, 96, 128, 192, 256, 576)),
                         [](const auto& param) {
                           return std::string(name(std::get<0>(param.param))) + "D" +
                                  std::to_string(std::get<1>(param.param));
                         });

TEST(CudaCache, LargestBatch) {
  PAGEDKV_NEEDS_DEVICE();
  // Sequences of 0, 1 or 2 tokens, so that one chunk of tokens spans many sequences and empty ones lie in between.
  Random random(3);
  CacheConfig config;
  config.head_dim = 64;
  config.format = {KvType::int8, KvType::int4};
  std::vector<int> lengths(65536);
  for (int& length : lengths) length = random.chance(3) ? random.integer(1, 2) : 0;
  lengths[40000] = 300;
  const Content content = make_content(config, lengths, {.rope = true}, random);
  Arrangement arrangement;
  arrangement.block_len = 16;
  Cache cache(content, arrangement);
  cache.write_all([](const WriteKvArgs& args) { ASSERT_EQ(why_different(args), ""); });
  ASSERT_EQ(cache.why_flatten_wrong([](const FlattenKvArgs& args) { ASSERT_EQ(why_different(args), ""); },
                                    support::RowOrder::packed, false),
            "");
}

TEST(CudaCache, RaggedBatch) {
  PAGEDKV_NEEDS_DEVICE();
  Random random(5);
  CacheConfig config;
  config.kv_heads = 3;
  config.head_dim = 128;
  for (const KvType stored : kStored) {
    config.format = {stored, stored};
    std::vector<int> lengths(300, 1);
    lengths[17] = 3000;
    const Content content = make_content(config, lengths, {.bias = true, .rope = true}, random);
    Cache cache(content, {});
    cache.write_all([](const WriteKvArgs& args) { ASSERT_EQ(why_different(args, {.slack = 5000}), ""); });
    ASSERT_EQ(cache.why_touched(), "");
  }
}

TEST(CudaCache, NothingToDo) {
  PAGEDKV_NEEDS_DEVICE();
  Random random(13);
  CacheConfig config;
  const Content content = make_content(config, {70, 3}, {}, random);
  Cache cache(content, {});
  const auto write = [](const WriteKvArgs& args) { support::device_write_kv(args, {.slack = 64}); };
  cache.write(write, {});
  cache.write(write, {{0, 70, 70}, {1, 0, 0}});
  EXPECT_EQ(cache.why_touched(), "");
}

}  // namespace
