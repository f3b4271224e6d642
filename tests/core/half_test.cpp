// Conversions between float32 and f16, bf16, against double arithmetic and against the processor's own.

#include "pagedkv/core/half.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "oracle/number.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pagedkv::core {
namespace {

float as_float(std::uint32_t bits) {
  return std::bit_cast<float>(bits);
}

template <class T>
constexpr oracle::Type kType = dtype_of<T> == DType::f16 ? oracle::Type::f16 : oracle::Type::bf16;

template <class T>
T from_bits(std::uint32_t bits) {
  return {static_cast<std::uint16_t>(bits)};
}

/// What from_float() must give, by rounding in double.
template <class T>
std::uint16_t expected_bits(float x) {
  if (std::isnan(x)) return 0x7fff;
  const double rounded = oracle::round_to(kType<T>, x);
  std::uint16_t bits = 0;
  oracle::store(kType<T>, &bits, rounded);
  return std::signbit(x) ? static_cast<std::uint16_t>(bits | 0x8000u) : bits;
}

template <class T>
class Half : public testing::Test {};
using Types = testing::Types<half_t, bfloat16_t>;
TYPED_TEST_SUITE(Half, Types);

TYPED_TEST(Half, EveryValueToFloat) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float x = to_float(from_bits<TypeParam>(bits));
    const auto raw = static_cast<std::uint16_t>(bits);
    const double expected = oracle::load(kType<TypeParam>, &raw);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(x)) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(x), expected) << bits;
    }
    ASSERT_EQ(std::signbit(x), (bits & 0x8000u) != 0) << bits;
  }
}

TYPED_TEST(Half, EveryValueComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float x = to_float(from_bits<TypeParam>(bits));
    ASSERT_EQ(from_float<TypeParam>(x).bits, std::isnan(x) ? 0x7fffu : bits);
  }
}

/// Floats around which rounding changes: each value of T, each midpoint between neighbours, and the floats beside them.
template <class T>
std::vector<float> boundaries() {
  std::vector<float> all;
  const auto add = [&](float x) {
    for (const float y : {x, std::nextafterf(x, INFINITY), std::nextafterf(x, -INFINITY)}) {
      all.push_back(y);
      all.push_back(-y);
    }
  };
  float previous = 0;
  for (std::uint32_t bits = 0; bits < 0x8000u; ++bits) {
    const float x = to_float(from_bits<T>(bits));
    if (!std::isfinite(x)) break;
    add(x);
    add(previous + (x - previous) / 2);
    previous = x;
  }
  // From the largest number on: the midpoint to the next power of two, and far beyond.
  const double largest = previous;
  add(static_cast<float>(largest * (1 + std::ldexp(1.0, dtype_of<T> == DType::f16 ? -11 : -8))));
  add(std::numeric_limits<float>::max());
  add(std::numeric_limits<float>::denorm_min());
  add(INFINITY);
  return all;
}

TYPED_TEST(Half, EveryBoundaryIsRoundedToEven) {
  for (const float x : boundaries<TypeParam>()) {
    ASSERT_EQ(from_float<TypeParam>(x).bits, expected_bits<TypeParam>(x)) << std::bit_cast<std::uint32_t>(x);
  }
}

// A stride that is odd meets every low bit pattern; 2^32 / 509 = 8.4 million floats. All 2^32 are hashed by
// `pagedkv verify --full`.
constexpr std::uint64_t kStride = 509;

TYPED_TEST(Half, FloatsOfAllMagnitudes) {
  for (std::uint64_t u = 0; u < (std::uint64_t{1} << 32); u += kStride) {
    const float x = as_float(static_cast<std::uint32_t>(u));
    ASSERT_EQ(from_float<TypeParam>(x).bits, expected_bits<TypeParam>(x)) << u;
  }
}

TYPED_TEST(Half, EveryNanIsOne) {
  for (const std::uint32_t u : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffc00000u, 0xffffffffu}) {
    EXPECT_EQ(from_float<TypeParam>(as_float(u)).bits, 0x7fffu);
  }
}

#if defined(__x86_64__) && defined(__SSE2__) && defined(__FLT16_MAX__)
// The compiler's own type, NaN payloads apart.
TEST(HalfOfTheCompiler, Agrees) {
  for (std::uint64_t u = 0; u < (std::uint64_t{1} << 32); u += 7 * kStride) {
    const float x = as_float(static_cast<std::uint32_t>(u));
    if (std::isnan(x)) continue;
    ASSERT_EQ(from_float<half_t>(x).bits, std::bit_cast<std::uint16_t>(static_cast<_Float16>(x))) << u;
  }
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto native = static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(bits)));
    if (std::isnan(native)) continue;
    ASSERT_EQ(to_float(from_bits<half_t>(bits)), native);
  }
}
#endif

#if defined(__x86_64__)
[[gnu::target("f16c")]] std::uint16_t hardware_from_float(float x) {
  return static_cast<std::uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
[[gnu::target("f16c")]] float hardware_to_float(std::uint16_t bits) {
  return _cvtsh_ss(bits);
}

TEST(HalfOfTheProcessor, Agrees) {
  if (__builtin_cpu_supports("f16c") == 0) GTEST_SKIP() << "this processor has no f16 conversions";
  for (std::uint64_t u = 0; u < (std::uint64_t{1} << 32); u += kStride) {
    const float x = as_float(static_cast<std::uint32_t>(u));
    if (std::isnan(x)) continue;
    ASSERT_EQ(from_float<half_t>(x).bits, hardware_from_float(x)) << u;
  }
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float native = hardware_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(native)) continue;
    ASSERT_EQ(to_float(from_bits<half_t>(bits)), native);
  }
}
#endif

TEST(Float32, OnlyNanChanges) {
  for (const float x : {0.0F, -0.0F, 1.5F, -3e38F, INFINITY, 1e-45F}) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(from_float<float>(x)), std::bit_cast<std::uint32_t>(x));
  }
  EXPECT_EQ(std::bit_cast<std::uint32_t>(from_float<float>(as_float(0xff800001u))), 0x7fffffffu);
}

// hd.h orders -0 below +0 and lets every NaN through.
TEST(MinMax, ZerosAndNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::signbit(min_nan(0.0F, -0.0F)));
  EXPECT_TRUE(std::signbit(min_nan(-0.0F, 0.0F)));
  EXPECT_FALSE(std::signbit(max_nan(0.0F, -0.0F)));
  EXPECT_FALSE(std::signbit(max_nan(-0.0F, 0.0F)));
  for (const float x : {1.0F, -INFINITY, nan}) {
    EXPECT_TRUE(std::isnan(min_nan(nan, x)));
    EXPECT_TRUE(std::isnan(min_nan(x, nan)));
    EXPECT_TRUE(std::isnan(max_nan(nan, x)));
    EXPECT_TRUE(std::isnan(max_nan(x, nan)));
  }
  EXPECT_EQ(min_nan(-INFINITY, 3.0F), -INFINITY);
  EXPECT_EQ(max_nan(-INFINITY, 3.0F), 3.0F);
}

}  // namespace
}  // namespace pagedkv::core
