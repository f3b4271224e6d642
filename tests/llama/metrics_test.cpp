#include "metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace llama {
namespace {

std::vector<float> random_logits(unsigned seed, std::size_t n, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

double log_sum_exp(const std::vector<float>& x) {
  long double sum = 0;
  for (const float v : x) sum += std::exp(static_cast<long double>(v));
  return static_cast<double>(std::log(sum));
}

TEST(Metrics, ExponentialsAreExactToTwoUnits) {
  std::vector<float> x;
  for (float v = -86.9F; v <= 0.0F; v += 1e-3F) x.push_back(v + 3.0F);
  for (const float v : {3.0F, 3.0F - 1e-7F, 2.6534F, 2.653F}) x.push_back(v);  // 0 and around -ln(2)/2
  std::vector<float> y(x.size());
  exponentials(x, 3.0F, y);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(double{x[i] - 3.0F});
    ASSERT_NEAR(double{y[i]} / expected, 1.0, 2e-7) << x[i];
  }
  exponentials(std::vector<float>{-1000.0F}, 0.0F, y);
  EXPECT_LT(y[0], 1e-37F);
}

TEST(Metrics, SoftmaxOfAnyLength) {
  for (const std::size_t n : {1U, 2U, 15U, 16U, 17U, 511U, 512U, 513U, 3000U}) {
    const auto x = random_logits(static_cast<unsigned>(n), n, 5.0F);
    const Softmax s = softmax(x);
    EXPECT_NEAR(s.log_sum_exp, log_sum_exp(x), 1e-6) << n;
    for (const float v : x) EXPECT_LE(v, x[static_cast<std::size_t>(s.best)]);
  }
  EXPECT_EQ(softmax(std::vector<float>{1.0F, 3.0F, 3.0F}).best, 1);
  EXPECT_NEAR(softmax(std::vector<float>{1000.0F, 1000.0F}).log_sum_exp, 1000.0 + std::log(2.0), 1e-9);
}

TEST(Metrics, KlDivergenceAgainstItsDefinition) {
  const auto a = random_logits(1, 500, 3.0F);
  auto b = random_logits(2, 500, 0.1F);
  for (std::size_t i = 0; i < a.size(); ++i) b[i] += a[i];
  double expected = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double log_p = double{a[i]} - log_sum_exp(a);
    expected += std::exp(log_p) * (log_p - double{b[i]} + log_sum_exp(b));
  }
  std::vector<float> p(a.size());
  probabilities(a, softmax(a), p);
  EXPECT_NEAR(kl_divergence(p, a, softmax(a), b, softmax(b)), expected, 1e-7);
  EXPECT_GT(expected, 1e-3);
  EXPECT_NEAR(kl_divergence(p, a, softmax(a), a, softmax(a)), 0.0, 1e-12);
}

TEST(Metrics, PerplexityOfAUniformGuess) {
  EXPECT_NEAR(perplexity(std::vector<double>(10, std::log(50.0))), 50.0, 1e-12);
}

TEST(Metrics, DifferenceOfAConstantShiftHasNoError) {
  const std::vector<double> reference{1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0};
  std::vector<double> shifted = reference;
  for (double& x : shifted) x += 0.1;
  const Estimate e = perplexity_difference(shifted, reference, 2);
  EXPECT_NEAR(e.value, std::exp(2.6) - std::exp(2.5), 1e-12);
  EXPECT_NEAR(e.standard_error, 0.0, 1e-12);
}

TEST(Metrics, StandardErrorMatchesTheSpreadOverManyTexts) {
  // Texts of 64 blocks of 8 tokens; the differences of a block share a random part, so tokens are not independent.
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  std::vector<double> values;
  double mean_error = 0.0;
  constexpr int kTexts = 400;
  for (int t = 0; t < kTexts; ++t) {
    std::vector<double> a, b;
    for (int block = 0; block < 64; ++block) {
      const double shared = 0.1 * normal(random);
      for (int i = 0; i < 8; ++i) {
        a.push_back(2.0);
        b.push_back(2.0 + shared + 0.1 * normal(random));
      }
    }
    const Estimate e = perplexity_difference(b, a, 8);
    values.push_back(e.value);
    mean_error += e.standard_error / kTexts;
  }
  double mean = 0.0;
  for (const double v : values) mean += v / kTexts;
  double variance = 0.0;
  for (const double v : values) variance += (v - mean) * (v - mean) / (kTexts - 1);
  EXPECT_NEAR(mean_error / std::sqrt(variance), 1.0, 0.15);
}

TEST(Metrics, OneBlockGivesNoStandardError) {
  const Estimate e = perplexity_difference(std::vector<double>{1.0, 2.0}, std::vector<double>{1.0, 1.0}, 2);
  EXPECT_NEAR(e.value, std::exp(1.5) - std::exp(1.0), 1e-12);
  EXPECT_TRUE(std::isnan(e.standard_error));
}

TEST(Metrics, Median) {
  EXPECT_EQ(median({}), 0.0);
  EXPECT_EQ(median({3.0, 1.0, 2.0}), 2.0);
  EXPECT_EQ(median({4.0, 1.0, 2.0, 3.0}), 2.5);
}

}  // namespace
}  // namespace llama
