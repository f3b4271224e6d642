#pragma once
// Random numbers with the same values from every standard library.

#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

namespace support {

/// splitmix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// lowest .. highest
  int integer(int lowest, int highest) {
    const auto span = static_cast<std::uint64_t>(std::int64_t{highest} - lowest + 1);
    return static_cast<int>(lowest + static_cast<std::int64_t>(bits() % span));
  }
  bool chance(int one_in) { return integer(1, one_in) == 1; }
  /// 0 <= x < 1
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(2 * std::numbers::pi * uniform()); }
  template <class T>
  void shuffle(std::vector<T>& v) {
    for (std::size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[static_cast<std::size_t>(bits() % i)]);
  }

 private:
  std::uint64_t state_;
};

}  // namespace support
