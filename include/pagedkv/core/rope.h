#pragma once
// Rotary position embedding from exact phases. docs/rope.md derives the formulas.
//
// A frequency is kept as a 64-bit fraction of a turn per position, so position * fraction, an integer product that
// wraps, is the phase at any position without the error that grows with the position in float32. Sine and cosine of the
// phase are float32 polynomials.

#include <cstdint>

#include "pagedkv/core/hd.h"

namespace pagedkv {

/// How channels pair up: (2i, 2i+1), or (i, i + dim/2) as in Hugging Face checkpoints.
enum class RopePairs : std::uint8_t { interleaved, half_split };

/// Axis of each pair's position for multimodal RoPE.
enum class MropeMode : std::uint8_t { none, chunked, interleaved };

namespace core {

/// Most pairs a RopeTable holds: rotated dimension up to 256.
inline constexpr int kMaxRopePairs = 128;

namespace detail {

/// log2 of a positive normal x, relative error about 1e-16: x = 2^e * m with m in [sqrt(1/2), sqrt(2)), atanh series in
/// (m-1)/(m+1).
PAGEDKV_HD double log2_det(double x) {
  auto u = bits_as<std::uint64_t>(x);
  auto e = static_cast<std::int32_t>(u >> 52) - 1023;
  double m = bits_as<double>((u & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  if (m > 1.4142135623730951) {
    m = mul_rn(m, 0.5);
    ++e;
  }
  const double s = div_rn(add_rn(m, -1.0), add_rn(m, 1.0));
  const double s2 = mul_rn(s, s);
  double p = 1.0 / 23.0;
  for (int k = 21; k >= 1; k -= 2) p = fma_rn(p, s2, 1.0 / k);
  return fma_rn(mul_rn(s, p), 2.8853900817779268, static_cast<double>(e));  // 2 / ln 2
}

/// 2^x for |x| < 1000, relative error about 2e-16: Taylor series of e^(f ln 2), f in [-1/2, 1/2].
PAGEDKV_HD double exp2_det(double x) {
  const double magic = 6755399441055744.0;  // 1.5 * 2^52: rounds to an integer
  const double n = add_rn(add_rn(x, magic), -magic);
  const double f = mul_rn(add_rn(x, -n), 0.69314718055994531);
  double p = 1.0;
  for (int k = 15; k >= 1; --k) p = fma_rn(mul_rn(p, f), 1.0 / k, 1.0);
  return mul_rn(p, bits_as<double>(static_cast<std::uint64_t>(static_cast<std::int64_t>(n) + 1023) << 52));
}

}  // namespace detail

/// Fraction of a turn per position, as a multiple of 2^-64, of a frequency in radians per position.
PAGEDKV_HD std::uint64_t turn_fraction(double radians) {
  const double turns = mul_rn(radians, 0.15915494309189535);  // 1 / (2 pi)
  const double whole = static_cast<double>(static_cast<std::int64_t>(turns));
  return static_cast<std::uint64_t>(mul_rn(add_rn(turns, -whole), 18446744073709551616.0));
}

/// base^(-2 pair / dim), the frequency of a pair without any scaling, in radians per position.
PAGEDKV_HD double rope_frequency(double log2_base, int pair, int dim) {
  return detail::exp2_det(mul_rn(div_rn(-2.0 * pair, static_cast<double>(dim)), log2_base));
}

/// The same for a base that is only known on the device (dynamic NTK).
PAGEDKV_HD std::uint64_t turn_from_base(float base, int pair, int dim) {
  return turn_fraction(rope_frequency(detail::log2_det(static_cast<double>(base)), pair, dim));
}

struct SinCos {
  float sin;
  float cos;
};

/// Sine and cosine of a phase given as a multiple of 2^-64 turns; absolute error below 1.2e-7.
PAGEDKV_HD SinCos sincos_turn(std::uint64_t phase) {
  // The top two bits: the nearest quarter turn.
  const std::uint32_t quadrant = static_cast<std::uint32_t>(phase >> 32) + 0x20000000u;
  const auto r = static_cast<std::int32_t>((quadrant & 0x3fffffffu) - 0x20000000u);
  const float x = mul_rn(static_cast<float>(r), 1.462918119976564e-9F);  // 2 pi / 2^32: radians in [-pi/4, pi/4]
  const float x2 = mul_rn(x, x);
  // Fitted to minimise the largest absolute error (Lawson's iteration); 1.8e-9 and 5e-11 before float32 rounding.
  float s = fma_rn(-0.000194956359337084F, x2, 0.00833197869360447F);
  s = fma_rn(s, x2, -0.16666650772094727F);
  s = fma_rn(mul_rn(s, x2), x, x);
  float c = fma_rn(2.4390450562350452e-05F, x2, -0.0013886763481423259F);
  c = fma_rn(c, x2, 0.04166662320494652F);
  c = fma_rn(c, x2, -0.5F);
  c = fma_rn(c, x2, 1.0F);
  const bool swapped = (quadrant & 0x40000000u) != 0u;
  const auto sine = bits_as<std::uint32_t>(swapped ? c : s) ^ (quadrant & 0x80000000u);
  const auto cosine = bits_as<std::uint32_t>(swapped ? s : c) ^ ((quadrant + 0x40000000u) & 0x80000000u);
  return {bits_as<float>(sine), bits_as<float>(cosine)};
}

/// Rotates one pair: x0' = c*x0 - s*x1, x1' = c*x1 + s*x0, each with one rounded product and one fma.
PAGEDKV_HD void rotate(float& x0, float& x1, SinCos t) {
  const float a = fma_rn(t.cos, x0, -mul_rn(t.sin, x1));
  const float b = fma_rn(t.cos, x1, mul_rn(t.sin, x0));
  x0 = a;
  x1 = b;
}

/// What the kernels need of RopeParams (ops.h), made by make_rope_table(). Passed by value.
struct RopeTable {
  std::int32_t dim = 0;  ///< rotated channels, 0 for none
  RopePairs pairs = RopePairs::interleaved;
  MropeMode mrope = MropeMode::none;
  float attention_factor = 1.0F;       ///< multiplies sine and cosine (yarn)
  std::int32_t mrope_section[3] = {};  ///< pairs of the T, H and W axis
  std::uint64_t turn[kMaxRopePairs] = {};

  // Backend memory, see RopeParams.
  const float* base = nullptr;  ///< [batch]; if set, turn[] is not used
  const std::int32_t* mrope_position_ids = nullptr;
  const std::int32_t* mrope_offsets = nullptr;
  const std::int32_t* mrope_length = nullptr;
  const std::int32_t* mrope_delta = nullptr;
};

/// Channels of pair i.
PAGEDKV_HD_CONSTEXPR int pair_first(RopePairs pairs, int i) {
  return pairs == RopePairs::interleaved ? 2 * i : i;
}
PAGEDKV_HD_CONSTEXPR int pair_second(RopePairs pairs, int i, int dim) {
  return pairs == RopePairs::interleaved ? 2 * i + 1 : i + dim / 2;
}

/// Axis (0 T, 1 H, 2 W) whose position pair i uses. `section` counts pairs per axis.
PAGEDKV_HD int mrope_axis(MropeMode mode, const std::int32_t (&section)[3], int i) {
  if (mode == MropeMode::chunked) return i < section[0] ? 0 : i < section[0] + section[1] ? 1 : 2;
  const int axis = i % 3;
  return axis != 0 && i / 3 < section[axis] ? axis : 0;
}

/// Positions of a token on the T, H and W axis; all the same without mrope.
struct AxisPositions {
  std::int64_t t;
  std::int64_t h;
  std::int64_t w;

  PAGEDKV_HD std::int64_t of(int axis) const { return axis == 0 ? t : axis == 1 ? h : w; }
};

/// `token` is its index among the sequence's new tokens, `position` its place in the sequence.
PAGEDKV_HD AxisPositions axis_positions(const RopeTable& r, int batch, std::int32_t token, std::int32_t position) {
  if (r.mrope == MropeMode::none) return {position, position, position};
  if (r.mrope_length != nullptr && token < r.mrope_length[batch]) {
    const std::int32_t* ids = r.mrope_position_ids + (std::int64_t{r.mrope_offsets[batch]} + token) * 3;
    return {ids[0], ids[1], ids[2]};
  }
  const std::int64_t p = std::int64_t{position} + (r.mrope_delta != nullptr ? r.mrope_delta[batch] : 0);
  return {p, p, p};
}

/// Position that pair i of a token uses.
PAGEDKV_HD std::int64_t rope_position(const RopeTable& r, int i, int batch, std::int32_t token, std::int32_t position) {
  return axis_positions(r, batch, token, position).of(mrope_axis(r.mrope, r.mrope_section, i));
}

/// Sine and cosine of a pair's phase, times the attention factor.
PAGEDKV_HD SinCos rope_sincos(float attention_factor, std::uint64_t phase) {
  SinCos t = sincos_turn(phase);
  t.sin = mul_rn(t.sin, attention_factor);
  t.cos = mul_rn(t.cos, attention_factor);
  return t;
}
PAGEDKV_HD SinCos rope_sincos(const RopeTable& r, std::uint64_t phase) {
  return rope_sincos(r.attention_factor, phase);
}

/// The same of pair i of a token.
PAGEDKV_HD SinCos rope_sincos(const RopeTable& r, int i, int batch, std::int32_t token, std::int32_t position) {
  const std::uint64_t turn = r.base != nullptr ? turn_from_base(r.base[batch], i, r.dim) : r.turn[i];
  return rope_sincos(r, static_cast<std::uint64_t>(rope_position(r, i, batch, token, position)) * turn);
}

}  // namespace core
}  // namespace pagedkv
