// Division by constants, token ownership among ranks, visible keys: against plain division and counting.

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "oracle/context_parallel.h"
#include "pagedkv/core/context_parallel.h"
#include "pagedkv/core/fast_divmod.h"
#include "pagedkv/core/mask.h"
#include "support/random.h"

namespace pagedkv::core {
namespace {

constexpr std::int32_t kMax = std::numeric_limits<std::int32_t>::max();

void expect_divides(std::int32_t d, const std::vector<std::int64_t>& dividends) {
  const FastDivmod by(d);
  for (const std::int64_t wide : dividends) {
    if (wide < 0 || wide > kMax) continue;
    const auto n = static_cast<std::int32_t>(wide);
    std::int32_t q = -1;
    std::int32_t r = -1;
    by(q, r, n);
    ASSERT_EQ(q, n / d) << n << " / " << d;
    ASSERT_EQ(r, n % d) << n << " % " << d;
    ASSERT_EQ(by.div(n), n / d);
    ASSERT_EQ(by.mod(n), n % d);
  }
}

/// Dividends around multiples of d, both ends of the range, and others.
std::vector<std::int64_t> dividends(std::int32_t d, support::Random& random) {
  std::vector<std::int64_t> all = {0, 1, 2, kMax, kMax - 1, kMax / 2};
  for (int i = 0; i < 40; ++i) {
    const std::int64_t multiple = static_cast<std::int64_t>(random.bits() >> 33) / d * d;
    for (const std::int64_t around : {-1, 0, 1}) all.push_back(multiple + around);
    all.push_back(static_cast<std::int64_t>(random.bits() >> 33));
  }
  for (const std::int64_t around : {-1, 0, 1}) all.push_back(std::int64_t{kMax} / d * d + around);
  return all;
}

TEST(FastDivmod, Divisors) {
  support::Random random(1);
  for (std::int32_t d = 1; d <= 5000; ++d) expect_divides(d, dividends(d, random));
  for (int shift = 12; shift < 31; ++shift) {
    for (const std::int64_t around : {-1, 0, 1}) {
      const auto d = static_cast<std::int32_t>((std::int64_t{1} << shift) + around);
      expect_divides(d, dividends(d, random));
    }
  }
  for (int i = 0; i < 5000; ++i) {
    const auto d = static_cast<std::int32_t>(1 + (random.bits() >> 33) % (kMax - 1));
    expect_divides(d, dividends(d, random));
  }
  for (const std::int32_t d : {kMax, kMax - 1, kMax / 2, kMax / 2 + 1, kMax / 3})
    expect_divides(d, dividends(d, random));
}

TEST(FastDivmod, EveryDividendOfSmallDivisors) {
  for (std::int32_t d = 1; d <= 70; ++d) {
    const FastDivmod by(d);
    for (std::int32_t n = 0; n < 20000; ++n) ASSERT_EQ(by.div(n), n / d);
  }
}

TEST(Ownership, PartitionInverseAndCount) {
  constexpr int kTokens = 400;
  for (int size = 1; size <= 9; ++size) {
    for (const int interleave : {1, 2, 3, 4, 7, 16, 64}) {
      std::vector<int> owners(kTokens, 0);
      for (int rank = 0; rank < size; ++rank) {
        const Ownership ownership(ContextParallel{rank, size, interleave});
        const std::vector<int> owned = oracle::owned_positions(rank, size, interleave, kTokens);
        for (std::size_t i = 0; i < owned.size(); ++i) {
          ASSERT_EQ(ownership.local(owned[i]), static_cast<std::int32_t>(i));
          ASSERT_EQ(ownership.position(static_cast<std::int32_t>(i)), owned[i]);
        }
        for (int n = 0; n <= kTokens; ++n) {
          ASSERT_EQ(ownership.count(n), std::lower_bound(owned.begin(), owned.end(), n) - owned.begin());
        }
        for (int t = 0; t < kTokens; ++t) {
          if (ownership.local(t) >= 0) ++owners[static_cast<std::size_t>(t)];
        }
      }
      ASSERT_TRUE(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }));
    }
  }
}

TEST(Ownership, PositionsNearTheLimit) {
  support::Random random(3);
  for (int i = 0; i < 20000; ++i) {
    const int size = random.integer(1, 64);
    const int interleave = 1 << random.integer(0, 12);
    const ContextParallel cp{random.integer(0, size - 1), size, interleave};
    const Ownership ownership(cp);
    const std::int32_t t = kMax - random.integer(0, 100000);
    const std::int64_t run = t / interleave;
    const std::int64_t expected = run / size * interleave + t % interleave;
    const std::int32_t local = ownership.local(t);
    ASSERT_EQ(local, run % size == cp.rank ? expected : -1);
    if (local >= 0) {
      ASSERT_EQ(ownership.position(local), t);
      ASSERT_EQ(ownership.count(t), local);
    }
  }
}

TEST(VisibleKeys, AreTheOnesThatTheRuleNames) {
  for (std::int32_t k_len = 1; k_len <= 40; ++k_len) {
    for (std::int32_t q = 0; q < k_len; ++q) {
      for (const bool causal : {true, false}) {
        for (const std::int32_t window : {0, 1, 2, 7, 39, 40, 41, kMax}) {
          if (!causal && window != 0) continue;
          const KeyRange range = visible_keys(q, k_len, causal, window);
          for (std::int32_t k = 0; k < k_len; ++k) {
            const bool visible = !causal || (k <= q && (window == 0 || q - k < window));
            ASSERT_EQ(k >= range.first && k < range.last, visible) << q << ' ' << k << ' ' << window;
          }
        }
      }
    }
  }
}

TEST(VisibleKeys, NearTheLimit) {
  const KeyRange range = visible_keys(kMax - 1, kMax, true, 4096);
  EXPECT_EQ(range.first, kMax - 4096);
  EXPECT_EQ(range.last, kMax);
  EXPECT_EQ(visible_keys(kMax - 1, kMax, true, kMax).first, 0);
}

}  // namespace
}  // namespace pagedkv::core
