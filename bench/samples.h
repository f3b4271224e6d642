#pragma once
// Repeated measurements of one quantity.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace bench {

class Samples {
 public:
  void add(double x) { values_.push_back(x); }
  bool empty() const { return values_.empty(); }
  double median() const { return quantile(0.5); }
  double lowest() const { return quantile(0.0); }
  double highest() const { return quantile(1.0); }

  double quantile(double q) const {
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<std::size_t>(std::lround(q * static_cast<double>(sorted.size() - 1)))];
  }

 private:
  std::vector<double> values_;
};

}  // namespace bench
