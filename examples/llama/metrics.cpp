#include "metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "sum.h"

namespace llama {

Softmax softmax(std::span<const float> logits) {
  const float* x = logits.data();
  const std::int64_t n = std::ssize(logits);
  const float* best = std::max_element(x, x + n);
  const float top = *best;
  const double sum = sum_over(n, [=](std::int64_t i) { return std::exp(x[i] - top); });
  return {double{top} + std::log(sum), best - x};
}

void probabilities(std::span<const float> logits, const Softmax& row, std::span<float> p) {
  const auto shift = static_cast<float>(row.log_sum_exp);
  for (std::size_t i = 0; i < logits.size(); ++i) p[i] = std::exp(logits[i] - shift);
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
  Estimate estimate{ppl - perplexity(reference_nll), 0.0};
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
