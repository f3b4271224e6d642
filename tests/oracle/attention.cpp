#include "oracle/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace oracle {
namespace {

template <class F>
AttentionRow attend_as(std::span<const double> q, const std::vector<std::span<const double>>& keys,
                       const std::vector<std::span<const double>>& values, std::size_t v_dim,
                       const AttentionOptions& options) {
  constexpr F kMinusInfinity = -std::numeric_limits<F>::infinity();
  std::vector<F> scores;
  F most = options.sink ? static_cast<F>(*options.sink) : kMinusInfinity;
  for (const std::span<const double> key : keys) {
    F dot = 0;
    for (std::size_t d = 0; d < q.size(); ++d) dot += static_cast<F>(q[d]) * static_cast<F>(key[d]);
    F score = dot * static_cast<F>(options.scale);
    const F cap = static_cast<F>(options.softcap);
    if (cap > 0) score = cap * std::tanh(score / cap);
    scores.push_back(score);
    most = std::max(most, score);
  }
  AttentionRow row;
  row.o.resize(v_dim);
  if (most == kMinusInfinity) {
    row.lse = -std::numeric_limits<double>::infinity();
    return row;
  }
  F total = options.sink ? std::exp(static_cast<F>(*options.sink) - most) : F{0};
  std::vector<F> sums(v_dim);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const F weight = std::exp(scores[i] - most);
    total += weight;
    for (std::size_t d = 0; d < v_dim; ++d) sums[d] += weight * static_cast<F>(values[i][d]);
  }
  for (std::size_t d = 0; d < v_dim; ++d) row.o[d] = static_cast<double>(sums[d] / total);
  row.lse = static_cast<double>(most + std::log(total));
  return row;
}

}  // namespace

std::vector<int> visible_positions(const std::vector<int>& available, int position, int k_len, bool causal,
                                   int window) {
  std::vector<int> seen;
  for (const int k : available) {
    if (k >= k_len) continue;
    if (causal && k > position) continue;
    if (window > 0 && position - k >= window) continue;
    seen.push_back(k);
  }
  return seen;
}

AttentionRow attend(std::span<const double> q, const std::vector<std::span<const double>>& keys,
                    const std::vector<std::span<const double>>& values, std::size_t v_dim,
                    const AttentionOptions& options) {
  return attend_as<double>(q, keys, values, v_dim, options);
}

AttentionRow attend_in_float(std::span<const double> q, const std::vector<std::span<const double>>& keys,
                             const std::vector<std::span<const double>>& values, std::size_t v_dim,
                             const AttentionOptions& options) {
  return attend_as<float>(q, keys, values, v_dim, options);
}

}  // namespace oracle
