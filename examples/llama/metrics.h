#pragma once
// What a cache format costs: likelihood of the text, distance of the next-token distributions, and their errors.

#include <cstdint>
#include <span>
#include <vector>

namespace llama {

/// y[i] = exp(x[i] - shift), for x[i] <= shift, within 2e-7 of it; below exp(-87) it stays there. As exact as std::exp
/// on floats and several times as fast over a vocabulary, because the compiler can vectorise it.
void exponentials(std::span<const float> x, float shift, std::span<float> y);

/// One row of logits, summed up.
struct Softmax {
  double log_sum_exp = 0.0;
  std::int64_t best = 0;  ///< index of the largest logit, the first of equals
};

Softmax softmax(std::span<const float> logits);

/// p[i] = exp(logits[i] - log_sum_exp)
void probabilities(std::span<const float> logits, const Softmax& row, std::span<float> p);

/// KL(reference || other) in nats: sum p (log p - log q).
/// @param p  probabilities() of the reference
double kl_divergence(std::span<const float> p, std::span<const float> reference, const Softmax& reference_row,
                     std::span<const float> other, const Softmax& other_row);

struct Estimate {
  double value = 0.0;
  double standard_error = 0.0;  ///< NaN if there is too little data to tell
};

/// exp(mean nll)
double perplexity(std::span<const double> nll);

/// perplexity(nll) - perplexity(reference_nll) with the standard error of the paired difference. Neighbouring tokens
/// share context, so their differences are correlated: the error comes from the spread of the means of consecutive
/// blocks of `block` tokens (at least two are needed), and from the derivative of exp at the mean.
Estimate perplexity_difference(std::span<const double> nll, std::span<const double> reference_nll, std::size_t block);

/// Mean of the middle of the values; 0 if there are none.
double median(std::vector<double> values);

}  // namespace llama
