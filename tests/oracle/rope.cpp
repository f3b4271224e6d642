#include "oracle/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace oracle {
namespace {

constexpr long double kPi = std::numbers::pi_v<long double>;

/// Pair index whose wavelength fits `turns` times into the original context.
long double pair_of_turns(const Rope& r, long double turns) {
  return r.dim * std::log(r.original_max_position / (turns * 2 * kPi)) /
         (2 * std::log(static_cast<long double>(r.base)));
}

long double yarn(const Rope& r, int pair, long double f) {
  const long double low = std::max(std::floor(pair_of_turns(r, r.beta_fast)), 0.0L);
  long double high = std::min(std::ceil(pair_of_turns(r, r.beta_slow)), r.dim - 1.0L);
  if (low == high) high += 0.001L;
  const long double slow = std::clamp((pair - low) / (high - low), 0.0L, 1.0L);
  return f * (1 - slow) + f / r.factor * slow;
}

long double llama3(const Rope& r, long double f) {
  const long double wavelength = 2 * kPi / f;
  if (wavelength < r.original_max_position / r.high_freq_factor) return f;
  if (wavelength > r.original_max_position / r.low_freq_factor) return f / r.factor;
  const long double smooth =
      (r.original_max_position / wavelength - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
  return (1 - smooth) * f / r.factor + smooth * f;
}

}  // namespace

long double frequency(const Rope& r, int pair) {
  const long double f = std::pow(static_cast<long double>(r.base), -2.0L * pair / r.dim);
  switch (r.kind) {
    case RopeKind::none:
      return 0;
    case RopeKind::standard:
    case RopeKind::dynamic:
      return f;
    case RopeKind::linear:
      return f / r.factor;
    case RopeKind::yarn:
      return yarn(r, pair, f);
    case RopeKind::llama3:
      return llama3(r, f);
  }
  return f;
}

long double magnitude(const Rope& r) {
  if (r.kind != RopeKind::yarn) return 1;
  return r.attention_factor != 0 ? r.attention_factor : 0.1L * std::log(static_cast<long double>(r.factor)) + 1;
}

int axis_of(const Rope& r, int pair) {
  switch (r.mrope) {
    case MropeKind::none:
      return 0;
    case MropeKind::chunked:
      if (pair < r.section[0]) return 0;
      return pair < r.section[0] + r.section[1] ? 1 : 2;
    case MropeKind::interleaved:
      if (pair % 3 == 1 && pair < 3 * r.section[1]) return 1;
      if (pair % 3 == 2 && pair < 3 * r.section[2]) return 2;
      return 0;
  }
  return 0;
}

void rotate(const Rope& r, std::array<long long, 3> position, std::vector<double>& row) {
  if (r.kind == RopeKind::none) return;
  for (int i = 0; i < r.dim / 2; ++i) {
    const auto first = static_cast<std::size_t>(r.half_split ? i : 2 * i);
    const auto second = static_cast<std::size_t>(r.half_split ? i + r.dim / 2 : 2 * i + 1);
    const long double angle = position[static_cast<std::size_t>(axis_of(r, i))] * frequency(r, i);
    const long double c = std::cos(angle) * magnitude(r);
    const long double s = std::sin(angle) * magnitude(r);
    const long double x0 = row[first];
    const long double x1 = row[second];
    row[first] = static_cast<double>(c * x0 - s * x1);
    row[second] = static_cast<double>(c * x1 + s * x0);
  }
}

}  // namespace oracle
