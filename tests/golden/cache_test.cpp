// Reading and writing the recorded cache blocks.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <span>

#include "golden/golden_case.h"
#include "golden/row_compare.h"

namespace golden {
namespace {

using pagedkv::DType;
using pagedkv::KvType;

class Golden : public testing::TestWithParam<CacheCase> {
  void SetUp() override {
    if (const std::string reason = cache_backend.why_not_run(); !reason.empty()) GTEST_SKIP() << reason;
  }
};
class GoldenFlat : public Golden {};        // flattened rows were recorded
class GoldenSame : public Golden {};        // 16-bit data, no codes
class GoldenQuantised : public Golden {};   // codes and parameters
class GoldenDegenerate : public Golden {};  // inputs with constant, tiny, huge and non-finite rows

TEST_P(GoldenFlat, GivesTheRecordedBits) {
  const CacheCase& c = GetParam();
  Cache cache(c);
  cache.set_layer_bytes(c.file("blocks").bytes);
  const std::vector<char> ours = flatten_case(c, cache);
  const std::vector<char> theirs = c.file("flat").bytes;
  ASSERT_EQ(ours.size(), theirs.size());
  const auto [a, b] = std::mismatch(ours.begin(), ours.end(), theirs.begin());
  EXPECT_TRUE(a == ours.end()) << "first difference at byte " << a - ours.begin();
}

TEST_P(Golden, WriteTouchesTheSameBytes) {
  const CacheCase& c = GetParam();
  Cache cache(c);
  write_case(c, cache);
  EXPECT_TRUE(cache.other_layers_untouched());
  const std::vector<char> ours = cache.layer_bytes();
  const std::vector<char> theirs = c.file("blocks").bytes;
  ASSERT_EQ(ours.size(), theirs.size());
  // A byte outside the written rows must be poison in both.
  std::vector<bool> written(ours.size(), false);
  for_each_row(c, [&](const Row& row) {
    for (std::int64_t i = 0; i < row.data_bytes; ++i) written[static_cast<std::size_t>(row.data + i)] = true;
    for (std::int64_t i = 0; i < row.param_bytes; ++i) written[static_cast<std::size_t>(row.param + i)] = true;
  });
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (written[i]) continue;
    ASSERT_EQ(ours[i], kPoison) << i;
    ASSERT_EQ(theirs[i], kPoison) << i;
  }
}

TEST_P(GoldenSame, IsRoundedOnce) {
  const CacheCase& c = GetParam();
  Cache cache(c);
  write_case(c, cache);
  const std::vector<char> ours = cache.layer_bytes();
  const std::vector<char> theirs = c.file("blocks").bytes;
  const oracle::Type t = type_of(c);
  const Truth truth(c);
  double our_error = 0;
  double their_error = 0;
  for_each_row(c, [&](const Row& row) {
    const std::vector<double> x = truth.row(row);
    for (std::size_t d = 0; d < x.size(); ++d) {
      const double a = oracle::load(t, ours.data() + row.data + d * 2);
      const double b = oracle::load(t, theirs.data() + row.data + d * 2);
      if (!row.rotated) {
        ASSERT_EQ(a, b) << "a sum of two T rounds alike in T and in float32";
      }
      // Half a unit in the last place of T, and what float32 sine, cosine and products add.
      ASSERT_LE(std::fabs(a - x[d]), oracle::half_ulp(t, x[d]) + 3e-7 * truth.largest(row));
      our_error += (a - x[d]) * (a - x[d]);
      their_error += (b - x[d]) * (b - x[d]);
    }
  });
  EXPECT_LE(our_error, their_error);
}

TEST_P(GoldenQuantised, ParametersAgree) {
  const CacheCase& c = GetParam();
  Cache cache(c);
  write_case(c, cache);
  const std::vector<char> ours = cache.layer_bytes();
  const std::vector<char> theirs = c.file("blocks").bytes;
  const Truth truth(c);
  for_each_row(c, [&](const Row& row) {
    if (!truth.ordinary(row)) return;  // GoldenDegenerate
    for (int i = 0; i < 2; ++i) {
      std::int16_t a = 0;
      std::int16_t b = 0;
      std::memcpy(&a, ours.data() + row.param + 2 * i, 2);
      std::memcpy(&b, theirs.data() + row.param + 2 * i, 2);
      // Without bias and rotation the minimum and maximum are values of T; else the original has rounded them to T.
      ASSERT_LE(std::abs(a - b), row.is_new && (c.has_bias || row.rotated) ? 1 : 0) << row.text() << " parameter " << i;
    }
  });
}

/// How far codes may be from the original's. It computes rn(rn(x - zero) * inv) in T.
/// f16: 11 digits, so each of the three roundings moves a code of at most 255 by 2^-12 * 255 = 0.06: with the final
/// rounding a code differs by 1 at most.
/// bf16: 8 digits, 2^-9 * 255 = 0.5 from each of x - zero, inv and the product; 1 in all with the two roundings to an
/// integer, so 2 for int8; the int4 codes are too small for it to matter. With bias or rotation the original's minimum
/// and scale are one unit of T (2^-8 of the scale, so 1 at code 255) away from ours, which makes 3.
int code_tolerance(const CacheCase& c, const Row& row) {
  if (c.layout.dtype != DType::bf16 || c.layout.format.k != KvType::int8) return 1;
  return row.is_new && (c.has_bias || row.rotated) ? 3 : 2;
}

TEST_P(GoldenQuantised, CodesAgree) {
  const CacheCase& c = GetParam();
  Cache cache(c);
  write_case(c, cache);
  const std::vector<char> ours = cache.layer_bytes();
  const std::vector<char> theirs = c.file("blocks").bytes;
  const Truth truth(c);
  for_each_row(c, [&](const Row& row) {
    if (!truth.ordinary(row)) return;  // GoldenDegenerate
    const oracle::QuantRow a = stored_row(c, row, ours);
    const oracle::QuantRow b = stored_row(c, row, theirs);
    for (std::size_t d = 0; d < a.codes.size(); ++d) {
      ASSERT_LE(std::abs(a.codes[d] - b.codes[d]), code_tolerance(c, row)) << row.text() << " element " << d;
    }
  });
}

TEST_P(GoldenQuantised, ReconstructsAtLeastAsWell) {
  const CacheCase& c = GetParam();
  Cache cache(c);
  write_case(c, cache);
  const ErrorTable errors = compare_errors(c, cache.layer_bytes(), c.file("blocks").bytes);
  ASSERT_GT(errors.rows, 0);
  EXPECT_LE(errors.ours.rms(), errors.theirs.rms());
  EXPECT_LE(errors.ours.largest, errors.theirs.largest);
}

// Constant rows, zeros, tiny and subnormal ranges, huge ranges, infinities, NaN.
TEST_P(GoldenDegenerate, Rows) {
  const CacheCase& c = GetParam();
  Cache cache(c);
  write_case(c, cache);
  const std::vector<char> ours = cache.layer_bytes();
  const std::vector<char> theirs = c.file("blocks").bytes;
  const Truth truth(c);
  int non_finite = 0;
  int constant = 0;
  for_each_row(c, [&](const Row& row) {
    if (truth.ordinary(row)) return;
    const std::vector<double> x = truth.row(row);
    const oracle::QuantRow a = stored_row(c, row, ours);
    const oracle::QuantRow b = stored_row(c, row, theirs);
    const auto [mn, mx] = std::minmax_element(x.begin(), x.end());
    if (!std::all_of(x.begin(), x.end(), [](double v) { return std::isfinite(v); })) {
      // The damage is visible: every element reads as NaN. The original hides a NaN as the row's minimum.
      ++non_finite;
      for (std::size_t d = 0; d < x.size(); ++d) ASSERT_TRUE(std::isnan(oracle::dequantise(type_of(c), a, d)));
      return;
    }
    double our_error = 0;
    double their_error = 0;
    for (std::size_t d = 0; d < x.size(); ++d) {
      our_error = std::max(our_error, std::fabs(oracle::dequantise(type_of(c), a, d) - x[d]));
      const double theirs_read = oracle::dequantise(type_of(c), b, d);
      their_error = std::max(their_error, std::isnan(theirs_read) ? HUGE_VAL : std::fabs(theirs_read - x[d]));
    }
    if (*mn == *mx) {
      ++constant;
      ASSERT_EQ(our_error, 0) << row.text();
    }
    ASSERT_LE(our_error, their_error) << row.text();
  });
  EXPECT_GT(non_finite, 0);
  EXPECT_GT(constant, 0);
}

std::string name_of(const testing::TestParamInfo<CacheCase>& info) {
  return info.param.name + "_r" + std::to_string(info.param.cp.rank);
}

std::vector<CacheCase> cases_that(bool (*wanted)(const CacheCase&)) {
  std::vector<CacheCase> found;
  for (const CacheCase& c : cache_cases()) {
    if (wanted(c)) found.push_back(c);
  }
  return found;
}

bool is_flat(const CacheCase& c) {
  return c.has_flat;
}
bool is_same(const CacheCase& c) {
  return c.layout.format.k == KvType::same;
}
bool is_quantised(const CacheCase& c) {
  return !is_same(c);
}
bool is_degenerate(const CacheCase& c) {
  return c.degenerate;
}

INSTANTIATE_TEST_SUITE_P(All, Golden, testing::ValuesIn(cache_cases()), name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenFlat, testing::ValuesIn(cases_that(is_flat)), name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenSame, testing::ValuesIn(cases_that(is_same)), name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenQuantised, testing::ValuesIn(cases_that(is_quantised)), name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenDegenerate, testing::ValuesIn(cases_that(is_degenerate)), name_of);

}  // namespace
}  // namespace golden
