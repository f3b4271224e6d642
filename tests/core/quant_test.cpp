// The int8 and int4 codecs against double arithmetic: parameters, codes, values, packing, degenerate rows.

#include "pagedkv/core/quant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "oracle/number.h"
#include "oracle/quant.h"
#include "support/convert.h"
#include "support/random.h"

namespace pagedkv::core {
namespace {

template <class T>
const oracle::Type kType = support::to_oracle(dtype_of<T>);

template <class T>
class Codec : public testing::Test {};
using Types = testing::Types<float, half_t, bfloat16_t>;
TYPED_TEST_SUITE(Codec, Types);

template <class T>
T any_bits(support::Random& random) {
  if constexpr (sizeof(T) == 4) {
    return bits_as<float>(static_cast<std::uint32_t>(random.bits()));
  } else {
    return T{static_cast<std::uint16_t>(random.bits())};
  }
}

/// Runs body with std::integral_constant<int, 8> and 4.
template <class Body>
void for_bits(Body&& body) {
  body(std::integral_constant<int, 8>());
  body(std::integral_constant<int, 4>());
}

TYPED_TEST(Codec, ParametersAreTheRoundedExactOnes) {
  using T = TypeParam;
  support::Random random(1);
  for_bits([&](auto bits) {
    for (int i = 0; i < 200000; ++i) {
      const double magnitude = std::ldexp(1.0, random.integer(-12, 12));
      const auto a = static_cast<float>(random.normal() * magnitude);
      const auto b = static_cast<float>(a + std::fabs(random.normal()) * std::ldexp(1.0, random.integer(-10, 10)));
      const auto p = quant_param<T, bits>(std::min(a, b), std::max(a, b));
      const float scale = to_float(p.scale);
      ASSERT_EQ(to_float(p.zero), static_cast<float>(oracle::round_to(kType<T>, std::min(a, b))));
      const double exact = (static_cast<double>(std::max(a, b)) - std::min(a, b)) / ((1 << bits) - 1);
      // Half a unit of T, and the float32 roundings of difference and product before it.
      ASSERT_LE(std::fabs(scale - exact), oracle::half_ulp(kType<T>, exact) + exact * 2e-7) << a << ' ' << b;
    }
  });
}

TYPED_TEST(Codec, CodesAreTheNearest) {
  using T = TypeParam;
  support::Random random(2);
  for_bits([&](auto bits) {
    for (int i = 0; i < 200000; ++i) {
      const QuantParam<T> p{from_float<T>(static_cast<float>(std::exp2(random.normal() * 3))),
                            from_float<T>(static_cast<float>(random.normal() * 100))};
      const RowEncoder e = row_encoder(p);
      const double scale = to_float(p.scale);
      const double zero = to_float(p.zero);
      if (scale == 0 || !std::isfinite(scale)) continue;
      const auto x = static_cast<float>(zero + (random.uniform() * 1.2 - 0.1) * scale * ((1 << bits) - 1));
      const std::uint32_t code = encode<bits>(x, e);
      // The product of two float32 is exact in double, so this rounds once like the definition.
      const double steps = static_cast<double>(static_cast<float>(x - to_float(p.zero))) * e.inv;
      const double expected = std::clamp(std::nearbyint(steps), 0.0, static_cast<double>((1 << bits) - 1));
      ASSERT_EQ(code, expected) << x << ' ' << scale << ' ' << zero;
      // And it is the nearest to the exact quotient but for float32's own error.
      const double quotient = std::clamp((x - zero) / scale, 0.0, static_cast<double>((1 << bits) - 1));
      ASSERT_LE(std::fabs(code - quotient), 0.5 + 1e-4 + std::fabs(zero) * 2e-7 / scale);
    }
  });
}

TYPED_TEST(Codec, EveryCodeComesBack) {
  using T = TypeParam;
  support::Random random(3);
  for_bits([&](auto bits) {
    for (int trial = 0; trial < 2000; ++trial) {
      const float scale =
          std::ldexp(1.0F, random.integer(-10, 6)) * (1.0F + 0.25F * static_cast<float>(random.integer(0, 3)));
      const float zero = scale * static_cast<float>(random.integer(-127, 127));
      const QuantParam<T> p{from_float<T>(scale), from_float<T>(zero)};
      const RowEncoder e = row_encoder(p);
      for (std::uint32_t code = 0; code < (1u << bits); ++code) {
        ASSERT_EQ(encode<bits>(decode_f32(code, to_float(p.scale), to_float(p.zero)), e), code);
      }
    }
  });
}

TYPED_TEST(Codec, ValuesAreRoundedOnce) {
  using T = TypeParam;
  support::Random random(4);
  const auto check = [&](std::uint32_t code, T scale, T zero) {
    const double s = to_float(scale);
    const double z = to_float(zero);
    const float value = to_float(decode<T>(code, {scale, zero}));
    const double exact = static_cast<double>(code) * s;  // 8 + 24 digits
    const double expected = oracle::round_sum(kType<T>, exact, z);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value));
      ASSERT_FALSE(std::signbit(value));
    } else {
      ASSERT_EQ(static_cast<double>(value), expected) << code << " * " << s << " + " << z;
    }
  };
  if constexpr (sizeof(T) == 2) {
    // Every scale with some codes and zeros of any bits, of scale's magnitude, and far below it.
    for (std::uint32_t scale = 0; scale < 65536; ++scale) {
      const T s{static_cast<std::uint16_t>(scale)};
      for (const std::uint32_t code : {0u, 1u, 2u, 3u, 7u, 15u, 16u, 100u, 127u, 128u, 200u, 251u, 255u}) {
        check(code, s, any_bits<T>(random));
        check(code, s, from_float<T>(-to_float(s) * static_cast<float>(random.integer(1, 255))));
        check(code, s,
              from_float<T>(to_float(s) * std::ldexp(static_cast<float>(random.normal()), -random.integer(4, 24))));
      }
    }
    // The largest numbers of T, where a product overflows and the sum may not.
    for (int i = 0; i < 300000; ++i) {
      const auto top = [&] {
        const auto below = static_cast<std::uint16_t>(random.integer(1, dtype_of<T> == DType::f16 ? 12000 : 1600));
        const std::uint16_t infinity = dtype_of<T> == DType::f16 ? 0x7c00 : 0x7f80;
        return static_cast<std::uint16_t>((infinity - below) | (random.chance(2) ? 0x8000 : 0));
      };
      check(static_cast<std::uint32_t>(random.integer(0, 255)), T{top()}, T{top()});
    }
  } else {
    for (int i = 0; i < 300000; ++i) {
      check(static_cast<std::uint32_t>(random.integer(0, 255)), static_cast<float>(random.normal()),
            static_cast<float>(random.normal() * std::ldexp(1.0, random.integer(-20, 20))));
    }
  }
}

TYPED_TEST(Codec, ConstantRowsAreExact) {
  using T = TypeParam;
  support::Random random(5);
  for_bits([&](auto bits) {
    for (int i = 0; i < 2000; ++i) {
      const float x =
          to_float(from_float<T>(static_cast<float>(random.normal() * std::ldexp(1.0, random.integer(-12, 12)))));
      const auto p = quant_param<T, bits>(x, x);
      ASSERT_EQ(to_float(p.scale), 0.0F);
      ASSERT_EQ(encode<bits>(x, row_encoder(p)), 0u);
      ASSERT_EQ(to_float(decode<T>(0, p)), x);
    }
  });
}

TYPED_TEST(Codec, ZerosOfBothSignsAreStoredAsPlusZero) {
  using T = TypeParam;
  for (const float mn : {0.0F, -0.0F}) {
    for (const float mx : {0.0F, -0.0F}) {
      const auto p = quant_param<T, 8>(min_nan(mn, mx), max_nan(mn, mx));
      EXPECT_FALSE(std::signbit(to_float(p.zero)));
      EXPECT_FALSE(std::signbit(to_float(p.scale)));
    }
  }
}

TYPED_TEST(Codec, DamageReadsAsNan) {
  using T = TypeParam;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::pair<float, float> damaged[] = {
      {nan, nan}, {-infinity, 1}, {1, infinity}, {-infinity, infinity}, {infinity, infinity}};
  for_bits([&](auto bits) {
    for (const auto& [mn, mx] : damaged) {
      const auto p = quant_param<T, bits>(mn, mx);
      EXPECT_EQ(to_float(p.scale), 0.0F);
      EXPECT_TRUE(std::isnan(to_float(p.zero)));
      for (const float x : {0.0F, mn, mx}) EXPECT_EQ(encode<bits>(x, row_encoder(p)), 0u);
      EXPECT_TRUE(std::isnan(to_float(decode<T>(0, p))));
    }
  });
}

// Rows whose step or minimum T cannot hold read as NaN; a step too small to divide by makes the row its minimum.
TEST(CodecLimits, RangesBeyondT) {
  EXPECT_TRUE(std::isnan(to_float(quant_param<half_t, 8>(-7e4F, 0.0F).zero)));
  EXPECT_TRUE(std::isnan(to_float(quant_param<half_t, 4>(0.0F, 1e6F).zero)));
  EXPECT_FALSE(std::isnan(to_float(quant_param<half_t, 8>(-65504.0F, 65504.0F).zero)));
  EXPECT_TRUE(std::isnan(to_float(quant_param<float, 8>(-3e38F, 3e38F).zero)));  // the difference overflows
  EXPECT_TRUE(std::isnan(to_float(quant_param<bfloat16_t, 8>(-3e38F, 3e38F).zero)));
  EXPECT_EQ((quant_param<float, 8>(0.0F, 1e-37F).scale), 0.0F);
  EXPECT_GT((quant_param<float, 8>(0.0F, 1e-35F).scale), 0.0F);
  EXPECT_EQ(to_float(quant_param<half_t, 8>(1.0F, 1.0F + 7e-6F).scale), 0.0F);  // 255 steps of less than half of 2^-24
}

TYPED_TEST(Codec, ReciprocalIsAlwaysFinite) {
  using T = TypeParam;
  support::Random random(6);
  for (int i = 0; i < 300000; ++i) {
    const float a = to_float(any_bits<T>(random));
    const float b = to_float(any_bits<T>(random));
    const auto p = quant_param<T, 8>(min_nan(a, b), max_nan(a, b));
    ASSERT_TRUE(std::isfinite(row_encoder(p).inv)) << a << ' ' << b;
  }
}

TEST(Int4, NibblesStandWhereTheFormatSays) {
  // Bytes of the stored word: e0|e2<<4, e4|e6<<4, e1|e3<<4, e5|e7<<4.
  const std::uint32_t codes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(pack_int4(codes), 0x86427531u);
  for (int element = 0; element < 8; ++element) {
    for (std::uint32_t code = 0; code < 16; ++code) {
      std::uint32_t one[8] = {};
      one[element] = code;
      const std::uint32_t word = pack_int4(one);
      const int byte = element % 2 * 2 + element / 4;
      const int nibble = element / 2 % 2;
      ASSERT_EQ(word, code << (8 * byte + 4 * nibble));
      for (int i = 0; i < 8; ++i) ASSERT_EQ(unpack_int4(word, i), i == element ? code : 0u);
    }
  }
}

}  // namespace
}  // namespace pagedkv::core
