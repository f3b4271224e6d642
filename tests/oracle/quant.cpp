#include "oracle/quant.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace oracle {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
/// Relative error of the few float32 operations of an encoder.
constexpr double kFloatSlack = 4e-7;

struct Range {
  double low;
  double high;
  bool finite;
};

Range range_of(std::span<const double> x) {
  Range r{x[0], x[0], true};
  for (const double v : x) {
    r.finite = r.finite && std::isfinite(v);
    r.low = std::min(r.low, v);
    r.high = std::max(r.high, v);
  }
  return r;
}

double top_code(int bits) {
  return static_cast<double>((1 << bits) - 1);
}

/// Steps whose reciprocal is beyond float32 are stored as 0.
bool invertible(double scale) {
  return std::isfinite(round_to(Type::f32, 1.0 / scale));
}

}  // namespace

QuantRow read_row(Type t, int bits, std::size_t codes, const void* data, const void* params) {
  QuantRow row;
  row.scale = load(t, params);
  row.zero = load(t, static_cast<const char*>(params) + bytes_of(t));
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < codes; ++i) {
    if (bits == 8) {
      row.codes.push_back(bytes[i]);
      continue;
    }
    // Nibbles of 8 elements, lowest first: e0 e2 e4 e6 e1 e3 e5 e7.
    constexpr int kNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    const int nibble = kNibble[i % 8];
    row.codes.push_back((bytes[i / 8 * 4 + static_cast<std::size_t>(nibble / 2)] >> (nibble % 2 * 4)) & 15);
  }
  return row;
}

QuantRow quantise(Type t, int bits, std::span<const double> x) {
  const Range r = range_of(x);
  QuantRow row;
  row.codes.assign(x.size(), 0);
  const double step = (r.high - r.low) / top_code(bits);
  if (!r.finite || !std::isfinite(round_to(t, r.low)) || !std::isfinite(round_to(t, step)) ||
      !std::isfinite(round_to(Type::f32, r.high - r.low))) {
    row.zero = kNan;
    return row;
  }
  row.zero = round_to(t, r.low) + 0.0;  // no negative zero
  row.scale = round_to(t, step);
  if (row.scale == 0 || !invertible(row.scale)) {
    row.scale = 0;
    return row;
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    row.codes[i] = static_cast<int>(std::clamp(std::nearbyint((x[i] - row.zero) / row.scale), 0.0, top_code(bits)));
  }
  return row;
}

std::string why_not_nearest(Type t, int bits, std::span<const double> x, double error, const QuantRow& stored) {
  std::ostringstream why;
  why.precision(17);
  const QuantRow ideal = quantise(t, bits, x);
  if (std::isnan(ideal.zero) || std::isnan(stored.zero) || ideal.scale == 0 || stored.scale == 0) {
    // Nothing to weigh here: a row either has these parameters or it has not.
    const bool same_zero = std::isnan(ideal.zero)
                               ? std::isnan(stored.zero)
                               : std::fabs(stored.zero - ideal.zero) <= 2 * half_ulp(t, ideal.zero) + error;
    const bool no_codes = std::all_of(stored.codes.begin(), stored.codes.end(), [](int c) { return c == 0; });
    // The exact step may be a hair from what rounds to 0.
    const bool tiny = !std::isnan(ideal.zero) && stored.scale + ideal.scale <= 4 * half_ulp(t, 0) + error;
    if (!same_zero || (stored.scale != ideal.scale && !tiny) || (stored.scale == 0 && !no_codes)) {
      why << "scale " << stored.scale << " and zero " << stored.zero << " instead of " << ideal.scale << " and "
          << ideal.zero;
    }
    return why.str();
  }
  const Range r = range_of(x);
  const double step = (r.high - r.low) / top_code(bits);
  if (std::fabs(stored.zero - r.low) > half_ulp(t, r.low) + error) {
    why << "zero " << stored.zero << " for the minimum " << r.low;
    return why.str();
  }
  if (std::fabs(stored.scale - step) >
      half_ulp(t, step) * (1 + 1e-6) + step * kFloatSlack + 2 * error / top_code(bits)) {
    why << "scale " << stored.scale << " for the step " << step;
    return why.str();
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = std::clamp((x[i] - stored.zero) / stored.scale, 0.0, top_code(bits));
    if (std::fabs(exact - stored.codes[i]) > 0.5 + error / stored.scale + top_code(bits) * kFloatSlack) {
      why << "code " << stored.codes[i] << " of element " << i << " where " << exact << " is exact";
      return why.str();
    }
  }
  return {};
}

double dequantise(Type t, const QuantRow& row, std::size_t i) {
  return round_sum(t, row.codes[i] * row.scale, row.zero);
}

}  // namespace oracle
