// parallel_for(), and the floating-point environment of the caller, which must not show in any result.

#include <gtest/gtest.h>

#include <atomic>
#include <cfenv>
#include <cmath>
#include <numeric>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "cpu/parallel.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "pagedkv/error.h"
#include "support/memory.h"
#include "support/random.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pagedkv::cpu {
namespace {

TEST(ParallelFor, EveryItemOnceWithItsOwnWorker) {
  for (const int threads : {1, 2, 3, 8, 64}) {
    for (const std::int64_t items : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(items));
      std::vector<std::atomic<bool>> busy(static_cast<std::size_t>(threads));
      parallel_for(items, threads, [&](std::int64_t item, int worker) {
        ASSERT_LT(worker, std::min<std::int64_t>(items, threads));
        ASSERT_FALSE(busy[static_cast<std::size_t>(worker)].exchange(true));
        calls[static_cast<std::size_t>(item)].fetch_add(1);
        busy[static_cast<std::size_t>(worker)] = false;
      });
      for (const auto& n : calls) ASSERT_EQ(n.load(), 1);
    }
  }
}

TEST(ParallelFor, PlainMemoryIsSharedWithTheCaller) {
  std::vector<int> x(10000);
  std::iota(x.begin(), x.end(), 0);
  std::vector<int> y(x.size());
  parallel_for(100, 8, [&](std::int64_t item, int) {
    for (std::size_t i = static_cast<std::size_t>(item) * 100; i < static_cast<std::size_t>(item + 1) * 100; ++i)
      y[i] = x[i] + 1;
  });
  for (std::size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], x[i] + 1);
}

TEST(ParallelFor, ExceptionsReachTheCaller) {
  for (const int threads : {1, 4}) {
    EXPECT_THROW(parallel_for(50, threads,
                              [](std::int64_t item, int) {
                                if (item == 20) throw std::runtime_error("item 20");
                              }),
                 std::runtime_error);
  }
}

TEST(ParallelFor, NestedAndFromManyThreads) {
  std::atomic<int> sum{0};
  std::vector<std::jthread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      parallel_for(10, 2, [&](std::int64_t, int) { parallel_for(10, 2, [&](std::int64_t, int) { ++sum; }); });
    });
  }
  callers.clear();  // joins
  EXPECT_EQ(sum, 400);
}

TEST(ResolveThreads, ZeroIsTheMachine) {
  EXPECT_GE(resolve_threads(0), 1);
  EXPECT_EQ(resolve_threads(3), 3);
  EXPECT_THROW(resolve_threads(-1), Error);
}

constexpr std::int32_t kTokens = 64;

/// Rows full of subnormal numbers, or of usual ones.
support::Tensor input() {
  support::Random random(9);
  support::Tensor x(oracle::Type::f32, std::int64_t{kTokens} * 4 * 128);
  for (std::int64_t i = 0; i < std::int64_t{kTokens} * 4 * 128; ++i) {
    x.set(i, random.normal() * (i / 128 % 3 == 0 ? 1e-36 : 1.0));
  }
  return x;
}

/// Cache bytes of the input and the rows read back, RoPE in both.
std::vector<char> results(const support::Tensor& x, int threads) {
  const BlockLayout layout =
      make_layout({.kv_heads = 4, .block_len = 16, .dtype = DType::f32, .format = {KvType::int8, KvType::int4}});
  const std::int32_t cu[2] = {0, kTokens};
  const std::int32_t indices[4] = {2, 0, 3, 1};
  support::Poisoned slab(static_cast<std::size_t>(4 * layout.block_bytes));
  WriteKvArgs w{.layout = layout, .batch = 1};
  w.table = {.indices = indices, .slab = slab.data(), .slab_blocks = 4, .row_stride = 4};
  w.cu_q = w.cu_k = cu;
  w.k = w.v = x.at(0);
  w.strides = packed_strides(4, 128);
  RopeParams rope;
  rope.type = RopeType::yarn;
  rope.dim = 64;
  rope.factor = 4;
  rope.original_max_position = 4096;
  w.rope = make_rope_table(rope, 128);
  write_kv(w, {.threads = threads});

  support::Tensor y(oracle::Type::f32, 2 * std::int64_t{kTokens} * 4 * 128);
  FlattenKvArgs f{.layout = layout, .table = w.table, .batch = 1};
  f.cu_k = cu;
  f.k = y.at(0);
  f.v = y.at(std::int64_t{kTokens} * 4 * 128);
  f.strides = packed_strides(4, 128);
  f.rope = w.rope;
  flatten_kv(f, {.threads = threads});

  std::vector<char> all(slab.data(), slab.data() + slab.size());
  all.insert(all.end(), y.memory().data(), y.memory().data() + y.memory().size());
  return all;
}

TEST(FloatEnvironment, OfTheCallerDoesNotMatterAndStays) {
  const support::Tensor x = input();
  for (const std::string_view name : targets()) {
    set_target(name);
    for (const int threads : {1, 3}) {
      const std::vector<char> expected = results(x, threads);
      for (const int mode : {FE_UPWARD, FE_TOWARDZERO}) {
        std::fesetround(mode);
        const std::vector<char> actual = results(x, threads);
        EXPECT_EQ(std::fegetround(), mode);
        std::fesetround(FE_TONEAREST);
        EXPECT_TRUE(expected == actual) << name << ' ' << mode;
      }
#if defined(__x86_64__)
      const unsigned before = _mm_getcsr();
      _mm_setcsr(before | 0x8040u);  // flush subnormal results, read subnormal inputs as zero
      const std::vector<char> actual = results(x, threads);
      const unsigned after = _mm_getcsr();
      _mm_setcsr(before);
      EXPECT_EQ(after & 0x8040u, 0x8040u);
      EXPECT_TRUE(expected == actual) << name;
#endif
    }
  }
  set_target(targets().front());
}

}  // namespace
}  // namespace pagedkv::cpu
