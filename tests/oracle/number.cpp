#include "oracle/number.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace oracle {
namespace {

struct Format {
  int digits;        // of the significand, the hidden one included
  int min_exponent;  // of the smallest normal number
  int max_exponent;  // of the largest number
};

Format format_of(Type t) {
  return t == Type::f32 ? Format{24, -126, 127} : t == Type::f16 ? Format{11, -14, 15} : Format{8, -126, 127};
}

/// Distance between neighbours around a finite x.
double quantum(Format f, double x) {
  const int e = x == 0 ? f.min_exponent : std::max(std::ilogb(x), f.min_exponent);
  return std::ldexp(1.0, e - (f.digits - 1));
}

/// Infinity where the magnitude has left the format.
double saturate(Format f, double x) {
  return std::fabs(x) >= std::ldexp(1.0, f.max_exponent + 1) ? std::copysign(std::numeric_limits<double>::infinity(), x)
                                                             : x;
}

}  // namespace

int bytes_of(Type t) {
  return t == Type::f32 ? 4 : 2;
}

double round_to(Type t, double x) {
  if (!std::isfinite(x)) return x;
  const Format f = format_of(t);
  const double q = quantum(f, x);
  return saturate(f, std::nearbyint(x / q) * q);
}

double round_sum(Type t, double a, double b) {
  const double s = a + b;
  if (!std::isfinite(s)) return s;
  const Format f = format_of(t);
  // What the addition lost. It matters only where s lies halfway between two numbers of the format.
  const double big = std::fabs(a) > std::fabs(b) ? a : b;
  const double small = std::fabs(a) > std::fabs(b) ? b : a;
  const double lost = small - (s - big);
  const double q = quantum(f, s);
  const double steps = s / q;
  if (lost != 0 && steps - std::floor(steps) == 0.5)
    return saturate(f, (lost > 0 ? std::ceil(steps) : std::floor(steps)) * q);
  return round_to(t, s);
}

double half_ulp(Type t, double x) {
  return 0.5 * quantum(format_of(t), x);
}

double load(Type t, const void* p) {
  if (t == Type::f32) {
    float x = 0;
    std::memcpy(&x, p, 4);
    return x;
  }
  std::uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  const Format f = format_of(t);
  const int mantissa_bits = f.digits - 1;
  const int exponent_field = (bits & 0x7fff) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent_field == (0x7fff >> mantissa_bits)) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent_field == 0) return sign * std::ldexp(mantissa, f.min_exponent - mantissa_bits);
  return sign * std::ldexp(mantissa + (1 << mantissa_bits), f.min_exponent + exponent_field - 1 - mantissa_bits);
}

void store(Type t, void* p, double x) {
  const double r = round_to(t, x);
  if (t == Type::f32) {
    const auto narrow = static_cast<float>(r);
    std::memcpy(p, &narrow, 4);
    return;
  }
  const Format f = format_of(t);
  const int mantissa_bits = f.digits - 1;
  const int special = (0x7fff >> mantissa_bits) << mantissa_bits;
  int bits = std::signbit(r) ? 0x8000 : 0;
  if (std::isnan(r)) {
    bits = 0x7fff;
  } else if (std::isinf(r)) {
    bits |= special;
  } else if (r != 0) {
    const int e = std::max(std::ilogb(r), f.min_exponent);
    const int significand = static_cast<int>(std::ldexp(std::fabs(r), mantissa_bits - e));
    // A normal number's hidden digit carries into the exponent field.
    bits |= ((e - f.min_exponent) << mantissa_bits) + significand;
  }
  const auto narrow = static_cast<std::uint16_t>(bits);
  std::memcpy(p, &narrow, 2);
}

}  // namespace oracle
