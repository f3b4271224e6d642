// RoPE: sine and cosine of phases, frequency tables of every type, positions per axis; against long double.

#include "pagedkv/core/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "oracle/rope.h"
#include "pagedkv/ops.h"
#include "support/random.h"

namespace pagedkv::core {
namespace {

constexpr long double kTwoPi = 2 * std::numbers::pi_v<long double>;

long double radians_of(std::uint64_t phase) {
  return std::ldexp(static_cast<long double>(phase), -64) * kTwoPi;
}

// ---- sincos_turn

/// Largest error of sine or cosine over phases `first`, `first + step`, ...
long double worst_error(std::uint64_t first, std::uint64_t step, std::uint64_t count) {
  long double worst = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t phase = first + i * step;
    const SinCos t = sincos_turn(phase);
    const long double x = radians_of(phase);
    worst = std::max({worst, std::fabs(t.sin - std::sin(x)), std::fabs(t.cos - std::cos(x))});
  }
  return worst;
}

TEST(SincosTurn, ErrorIsBelowTheStatedBound) {
  // Odd steps through all phases, and densely around the multiples of an eighth of a turn, where the pieces meet.
  EXPECT_LT(worst_error(0, 0x000010000000012fu * 3, 1u << 20), 1.2e-7L);
  for (std::uint64_t eighth = 0; eighth < 8; ++eighth) {
    EXPECT_LT(worst_error((eighth << 61) - (std::uint64_t{2000} << 32), std::uint64_t{1} << 32, 4000), 1.2e-7L);
  }
}

TEST(SincosTurn, QuarterTurnsAreExact) {
  const float expected[4][2] = {{0, 1}, {1, 0}, {0, -1}, {-1, 0}};
  for (std::uint64_t quarter = 0; quarter < 4; ++quarter) {
    const SinCos t = sincos_turn(quarter << 62);
    EXPECT_EQ(t.sin, expected[quarter][0]);
    EXPECT_EQ(t.cos, expected[quarter][1]);
  }
}

TEST(SincosTurn, OppositePhasesMirrorBitByBit) {
  support::Random random(1);
  for (int i = 0; i < 100000; ++i) {
    const std::uint64_t phase = random.bits() & 0xffffffff00000000u;
    const SinCos a = sincos_turn(phase);
    const SinCos b = sincos_turn(phase + (std::uint64_t{1} << 63));
    ASSERT_EQ(a.sin, -b.sin);
    ASSERT_EQ(a.cos, -b.cos);
    ASSERT_NEAR(a.sin * a.sin + a.cos * a.cos, 1.0F, 3e-7F);
  }
}

// ---- logarithm and power

TEST(DeterministicMath, LogarithmAndPower) {
  support::Random random(2);
  for (int i = 0; i < 200000; ++i) {
    const double x = std::ldexp(1 + random.uniform(), random.integer(-60, 60));
    const long double log = std::log2(static_cast<long double>(x));
    ASSERT_NEAR(static_cast<double>(detail::log2_det(x) - log), 0,
                4e-16 * std::max(1.0, static_cast<double>(std::fabs(log))));
    const double y = random.normal() * 20;
    const long double power = std::exp2(static_cast<long double>(y));
    ASSERT_NEAR(static_cast<double>(detail::exp2_det(y) / power), 1, 5e-16) << y;
  }
  EXPECT_EQ(detail::log2_det(1.0), 0);
  EXPECT_EQ(detail::log2_det(1024.0), 10);
  EXPECT_EQ(detail::exp2_det(0.0), 1);
  EXPECT_EQ(detail::exp2_det(-13.0), std::ldexp(1.0, -13));
}

// ---- tables of every type

struct TypeCase {
  const char* name;
  RopeParams params;
  oracle::Rope rope;
};

TypeCase type_case(const char* name, RopeType type, int dim, double base) {
  TypeCase c{name, {}, {}};
  c.params.type = type;
  c.params.dim = dim;
  c.params.base = base;
  c.rope.kind = static_cast<oracle::RopeKind>(type);
  c.rope.dim = dim;
  c.rope.base = base;
  return c;
}

void set_factor(TypeCase& c, double factor, int original_max_position) {
  c.params.factor = c.rope.factor = factor;
  c.params.original_max_position = c.rope.original_max_position = original_max_position;
}

/// The settings of well-known model families, and unusual ones.
std::vector<TypeCase> type_cases() {
  std::vector<TypeCase> all;
  all.push_back(type_case("standard", RopeType::standard, 128, 10000));
  all.push_back(type_case("standard_large_base", RopeType::standard, 64, 1e6));
  all.push_back(type_case("standard_partial", RopeType::standard, 24, 10000));
  all.push_back(type_case("standard_widest", RopeType::standard, 256, 500000));
  all.push_back(type_case("base_1", RopeType::standard, 64, 1));
  all.push_back(type_case("linear", RopeType::linear, 128, 10000));
  set_factor(all.back(), 8, 0);
  all.push_back(type_case("dynamic", RopeType::dynamic, 128, dynamic_rope_base(10000, 4, 128, 4096, 10000)));
  all.push_back(type_case("yarn", RopeType::yarn, 128, 1e6));
  set_factor(all.back(), 4, 32768);
  all.push_back(type_case("yarn_attention_factor", RopeType::yarn, 64, 10000));
  set_factor(all.back(), 40, 4096);
  all.back().params.attention_factor = all.back().rope.attention_factor = 1.25;
  all.push_back(type_case("yarn_betas", RopeType::yarn, 128, 10000));
  set_factor(all.back(), 16, 2048);
  all.back().params.beta_fast = all.back().rope.beta_fast = 64;
  all.back().params.beta_slow = all.back().rope.beta_slow = 2;
  all.push_back(type_case("yarn_equal_bounds", RopeType::yarn, 64, 10000));
  set_factor(all.back(), 2, 7);  // both bounds of the ramp are 0
  all.push_back(type_case("llama3", RopeType::llama3, 128, 500000));
  set_factor(all.back(), 8, 8192);
  all.push_back(type_case("llama3_factors", RopeType::llama3, 64, 500000));
  set_factor(all.back(), 32, 8192);
  all.back().params.low_freq_factor = all.back().rope.low_freq_factor = 0.5;
  all.back().params.high_freq_factor = all.back().rope.high_freq_factor = 7;
  return all;
}

std::string case_name(const testing::TestParamInfo<TypeCase>& test) {
  return test.param.name;
}

class RopeTypes : public testing::TestWithParam<TypeCase> {};
INSTANTIATE_TEST_SUITE_P(All, RopeTypes, testing::ValuesIn(type_cases()), case_name);

TEST_P(RopeTypes, FrequenciesAreTheFormulas) {
  const auto& [name, params, rope] = GetParam();
  const RopeTable table = make_rope_table(params, 256);
  EXPECT_EQ(table.dim, params.dim);
  EXPECT_NEAR(table.attention_factor, static_cast<double>(oracle::magnitude(rope)), 1e-7);
  for (int i = 0; i < params.dim / 2; ++i) {
    const long double exact = oracle::frequency(rope, i) / kTwoPi;
    // A double's precision, and the last of the 64 bits.
    EXPECT_NEAR(static_cast<double>(std::ldexp(static_cast<long double>(table.turn[i]), -64) / exact), 1,
                4e-15 + static_cast<double>(std::ldexp(1.0L, -63) / exact))
        << i;
  }
}

TEST_P(RopeTypes, AnglesHoldUpToTheLastPosition) {
  const auto& [name, params, rope] = GetParam();
  const RopeTable table = make_rope_table(params, 256);
  support::Random random(3);
  std::vector<std::int32_t> positions = {0, 1, 2, 4095, 4096, 131071, 1 << 20, (1 << 24) + 1, 2147483646, 2147483647};
  for (int i = 0; i < 40; ++i) positions.push_back(static_cast<std::int32_t>(random.bits() >> 33));
  for (const std::int32_t position : positions) {
    // sincos_turn's own error, float32's rounding of the scaled result, and what a double frequency leaves of the
    // angle.
    const double tolerance = 1.2e-7 + 1.2e-7 * (table.attention_factor - 1) + 1.2e-7 + position * 3e-16;
    for (int i = 0; i < params.dim / 2; ++i) {
      const SinCos t = rope_sincos(table, i, 0, 0, position);
      const long double angle = std::remainder(position * oracle::frequency(rope, i), kTwoPi);
      ASSERT_NEAR(t.sin, static_cast<double>(std::sin(angle) * oracle::magnitude(rope)), tolerance)
          << position << ' ' << i;
      ASSERT_NEAR(t.cos, static_cast<double>(std::cos(angle) * oracle::magnitude(rope)), tolerance)
          << position << ' ' << i;
    }
  }
}

TEST(RopeTable, NoneRotatesNothing) {
  EXPECT_EQ(make_rope_table({}, 128).dim, 0);
}

// A base per sequence gives the same bits as a table made for that base.
TEST(RopeTable, BaseOfEachSequence) {
  const float bases[3] = {10000.0F, 54321.5F, 1e6F};
  RopeParams p;
  p.type = RopeType::dynamic;
  p.dim = 96;
  p.dynamic_base = bases;
  const RopeTable by_array = make_rope_table(p, 128);
  p.dynamic_base = nullptr;
  for (int b = 0; b < 3; ++b) {
    p.base = bases[b];
    const RopeTable fixed = make_rope_table(p, 128);
    for (const std::int32_t position : {1, 1000, 2000000000}) {
      for (int i = 0; i < 48; ++i) {
        const SinCos x = rope_sincos(by_array, i, b, 0, position);
        const SinCos y = rope_sincos(fixed, i, b, 0, position);
        ASSERT_EQ(x.sin, y.sin);
        ASSERT_EQ(x.cos, y.cos);
      }
    }
  }
}

TEST(DynamicRopeBase, IsTheNtkFormula) {
  EXPECT_EQ(dynamic_rope_base(10000, 4, 128, 4096, 4096), 10000);  // not longer than the model's maximum
  EXPECT_EQ(dynamic_rope_base(10000, 1, 128, 4096, 9000), 10000);
  const long double stretched = 4.0L * 10000 / 4096 - 3;
  EXPECT_NEAR(dynamic_rope_base(10000, 4, 128, 4096, 10000),
              static_cast<double>(10000 * std::pow(stretched, 128.0L / 126)), 1e-9);
}

// ---- pairs and axes

TEST(Pairs, CoverEveryChannelOnce) {
  for (const RopePairs order : {RopePairs::interleaved, RopePairs::half_split}) {
    for (int dim = 16; dim <= 256; dim += 16) {
      std::vector<int> seen(static_cast<std::size_t>(dim), 0);
      for (int i = 0; i < dim / 2; ++i) {
        ++seen[static_cast<std::size_t>(pair_first(order, i))];
        ++seen[static_cast<std::size_t>(pair_second(order, i, dim))];
      }
      for (const int n : seen) ASSERT_EQ(n, 1);
    }
  }
}

TEST(Mrope, AxesOfThePairs) {
  support::Random random(4);
  for (int trial = 0; trial < 500; ++trial) {
    const int pairs = 8 * random.integer(1, 16);
    oracle::Rope rope;
    rope.dim = 2 * pairs;
    const int t = random.integer(0, pairs);
    const int h = random.integer(0, pairs - t);
    rope.section = {t, h, pairs - t - h};
    const std::int32_t section[3] = {rope.section[0], rope.section[1], rope.section[2]};
    for (int i = 0; i < pairs; ++i) {
      rope.mrope = oracle::MropeKind::chunked;
      ASSERT_EQ(mrope_axis(MropeMode::chunked, section, i), oracle::axis_of(rope, i));
      rope.mrope = oracle::MropeKind::interleaved;
      ASSERT_EQ(mrope_axis(MropeMode::interleaved, section, i), oracle::axis_of(rope, i));
    }
  }
}

TEST(Mrope, PositionsOfTokens) {
  // Sequence 1 has two tokens with positions of their own, at rows 5 and 6 of the ids; sequence 0 has none.
  const std::int32_t ids[7][3] = {{}, {}, {}, {}, {}, {10, 20, 30}, {11, 21, 31}};
  const std::int32_t offsets[2] = {0, 5};
  const std::int32_t length[2] = {0, 2};
  const std::int32_t delta[2] = {7, -40};
  RopeParams p;
  p.type = RopeType::standard;
  p.dim = 16;
  p.mrope = MropeMode::chunked;
  p.mrope_section[0] = 2;
  p.mrope_section[1] = 3;
  p.mrope_section[2] = 3;
  p.mrope_position_ids = ids[0];
  p.mrope_offsets = offsets;
  p.mrope_length = length;
  p.mrope_delta = delta;
  const RopeTable r = make_rope_table(p, 64);
  const int axis[8] = {0, 0, 1, 1, 1, 2, 2, 2};
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(rope_position(r, i, 0, 0, 100), 107);
    EXPECT_EQ(rope_position(r, i, 1, 0, 100), ids[5][axis[i]]);
    EXPECT_EQ(rope_position(r, i, 1, 1, 101), ids[6][axis[i]]);
    EXPECT_EQ(rope_position(r, i, 1, 2, 102), 62);
    EXPECT_EQ(rope_position(r, i, 1, 2, 30), -10);  // before the start: the phase wraps
  }
  const SinCos back = rope_sincos(r, 3, 1, 2, 30);
  const SinCos forth = sincos_turn(10 * r.turn[3]);
  EXPECT_NEAR(back.sin, -forth.sin, 1e-7);
  EXPECT_NEAR(back.cos, forth.cos, 1e-7);
  p.mrope_length = nullptr;
  p.mrope_delta = nullptr;
  EXPECT_EQ(rope_position(make_rope_table(p, 64), 5, 1, 0, 100), 100);
}

}  // namespace
}  // namespace pagedkv::core
