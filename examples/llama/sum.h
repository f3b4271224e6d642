#pragma once

#include <array>
#include <cstdint>
#include <numeric>

namespace llama {

/// Sum of term(i) for i < n in float64. Several partial sums, because one would make every addition wait for the last.
template <class Term>
double sum_over(std::int64_t n, Term term) {
  constexpr std::int64_t kLanes = 16;
  std::array<double, kLanes> partial{};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      partial[static_cast<std::size_t>(lane)] += static_cast<double>(term(i + lane));
    }
  }
  for (; i < n; ++i) partial[0] += static_cast<double>(term(i));
  return std::accumulate(partial.begin(), partial.end(), 0.0);
}

}  // namespace llama
