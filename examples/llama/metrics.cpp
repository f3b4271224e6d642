#include "metrics.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "sum.h"

namespace llama {
namespace {

/// exp(x) for x <= 0: 2^n times a polynomial in the rest, which is at most ln(2)/2 from 0.
inline float exponential(float x) {
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F;  // few bits, so that n * kLn2High is exact
  constexpr float kLn2Low = -2.12194440e-4F;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it leaves no bits after the point
  x = std::max(x, -87.0F);
  const float n = (x * kLog2E + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.0F / 5040.0F;
  p = p * r + 1.0F / 720.0F;
  p = p * r + 1.0F / 120.0F;
  p = p * r + 1.0F / 24.0F;
  p = p * r + 1.0F / 6.0F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23) * p;
}

float largest(std::span<const float> x) {
  constexpr std::size_t kLanes = 16;
  std::array<float, kLanes> best{};
  best.fill(x[0]);
  std::size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) best[lane] = std::max(best[lane], x[i + lane]);
  }
  for (; i < x.size(); ++i) best[0] = std::max(best[0], x[i]);
  return *std::max_element(best.begin(), best.end());
}

}  // namespace

void exponentials(std::span<const float> x, float shift, std::span<float> y) {
  const float* in = x.data();
  float* out = y.data();
  const std::size_t n = x.size();
  for (std::size_t i = 0; i < n; ++i) out[i] = exponential(in[i] - shift);
}

Softmax softmax(std::span<const float> logits) {
  constexpr std::size_t kPiece = 512;  // stays in the first cache
  const float top = largest(logits);
  double sum = 0.0;
  std::array<float, kPiece> piece{};
  for (std::size_t i = 0; i < logits.size(); i += kPiece) {
    const auto x = logits.subspan(i, std::min(kPiece, logits.size() - i));
    exponentials(x, top, piece);
    sum += sum_over(std::ssize(x), [&piece](std::int64_t k) { return piece[static_cast<std::size_t>(k)]; });
  }
  return {double{top} + std::log(sum), std::find(logits.begin(), logits.end(), top) - logits.begin()};
}

void probabilities(std::span<const float> logits, const Softmax& row, std::span<float> p) {
  exponentials(logits, static_cast<float>(row.log_sum_exp), p);
}

double kl_divergence(std::span<const float> p, std::span<const float> reference, const Softmax& reference_row,
                     std::span<const float> other, const Softmax& other_row) {
  const double shift = reference_row.log_sum_exp - other_row.log_sum_exp;
  const float* weight = p.data();
  const float* a = reference.data();
  const float* b = other.data();
  return sum_over(std::ssize(p), [=](std::int64_t i) {
    return static_cast<double>(weight[i]) * (static_cast<double>(a[i]) - static_cast<double>(b[i]) - shift);
  });
}

double perplexity(std::span<const double> nll) {
  const double sum = std::accumulate(nll.begin(), nll.end(), 0.0);
  return std::exp(sum / static_cast<double>(nll.size()));
}

Estimate perplexity_difference(std::span<const double> nll, std::span<const double> reference_nll, std::size_t block) {
  const double ppl = perplexity(nll);
  Estimate estimate{ppl - perplexity(reference_nll), std::numeric_limits<double>::quiet_NaN()};
  std::vector<double> means;
  for (std::size_t at = 0; at + block <= nll.size(); at += block) {
    double sum = 0.0;
    for (std::size_t i = at; i < at + block; ++i) sum += nll[i] - reference_nll[i];
    means.push_back(sum / static_cast<double>(block));
  }
  const auto n = static_cast<double>(means.size());
  if (n < 2) return estimate;
  const double mean = std::accumulate(means.begin(), means.end(), 0.0) / n;
  const double squares = std::accumulate(means.begin(), means.end(), 0.0,
                                         [mean](double s, double m) { return s + (m - mean) * (m - mean); });
  estimate.standard_error = ppl * std::sqrt(squares / (n * (n - 1)));
  return estimate;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

}  // namespace llama
