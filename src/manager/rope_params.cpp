// make_rope_table(): docs/rope.md has the formulas and their sources. Logarithms and powers are core/rope.h's own, so
// the table has the same bits with every C library.

#include <algorithm>
#include <cmath>

#include "common/args_check.h"
#include "common/check.h"
#include "common/enum_check.h"
#include "common/float_env.h"
#include "common/format.h"
#include "pagedkv/ops.h"

namespace pagedkv {
namespace {

constexpr const char* kOwner = "RopeParams";
constexpr double kTwoPi = 6.283185307179586;
constexpr double kLn2 = 0.69314718055994531;
constexpr double kLargest = 1e30;  // far beyond any model, and no product below can overflow
constexpr double kSmallest = 1e-30;

void check_number(const char* field, double value, double lowest, double highest) {
  if (!(value >= lowest && value <= highest)) {
    common::reject(kOwner, field, value, common::formatted("{} .. {}", lowest, highest));
  }
}

void check_params(const RopeParams& p) {
  common::check_enum(kOwner, "type", p.type);
  check_number("base", p.base, 1.0, kLargest);
  common::check_optional_pointer(kOwner, "dynamic_base", p.dynamic_base, alignof(float));
  if (p.type != RopeType::dynamic && p.dynamic_base != nullptr) {
    common::reject(kOwner, "dynamic_base", p.dynamic_base, "null unless type is dynamic");
  }
  if (p.type == RopeType::linear) check_number("factor", p.factor, kSmallest, kLargest);
  if (p.type == RopeType::yarn || p.type == RopeType::llama3) {
    check_number("factor", p.factor, 1.0, kLargest);
    common::check_at_least(kOwner, "original_max_position", p.original_max_position, 1);
  }
  if (p.type == RopeType::yarn) {
    check_number("base", p.base, 1.0 + 1e-6, kLargest);  // its logarithm is a divisor
    check_number("attention_factor", p.attention_factor, 0.0, kLargest);
    check_number("beta_slow", p.beta_slow, kSmallest, kLargest);
    check_number("beta_fast", p.beta_fast, p.beta_slow, kLargest);
  }
  if (p.type == RopeType::llama3) {
    check_number("low_freq_factor", p.low_freq_factor, 0.0, kLargest);
    check_number("high_freq_factor", p.high_freq_factor, p.low_freq_factor, kLargest);
    if (p.high_freq_factor == p.low_freq_factor) {
      common::reject(kOwner, "high_freq_factor", p.high_freq_factor,
                     common::formatted("more than low_freq_factor = {}", p.low_freq_factor));
    }
  }
}

double clamp01(double x) {
  return std::min(std::max(x, 0.0), 1.0);
}

/// Share of interpolation of each pair under YaRN: 0 up to pair `low`, 1 from pair `high` on.
struct YarnRamp {
  double low = 0.0;
  double high = 1.0;

  YarnRamp() = default;
  YarnRamp(const RopeParams& p, double log2_base) {
    // The pair that turns `turns` times over the original context.
    const auto pair_of = [&](double turns) {
      return p.dim * core::detail::log2_det(p.original_max_position / (kTwoPi * turns)) / (2.0 * log2_base);
    };
    low = std::max(std::floor(pair_of(p.beta_fast)), 0.0);
    high = std::min(std::ceil(pair_of(p.beta_slow)), p.dim - 1.0);
    if (low == high) high += 0.001;
  }

  double at(int pair) const { return clamp01((pair - low) / (high - low)); }
};

double llama3_frequency(const RopeParams& p, double f) {
  const double turns = p.original_max_position * f / kTwoPi;  // over the original context
  const double u = clamp01((turns - p.low_freq_factor) / (p.high_freq_factor - p.low_freq_factor));
  return (1.0 - u) * f / p.factor + u * f;
}

/// Not inlined, so that FloatEnv in the caller surrounds all of it.
[[gnu::noinline]] void fill_frequencies(const RopeParams& p, core::RopeTable& table) {
  if (p.type == RopeType::yarn) {
    const double usual = 0.1 * kLn2 * core::detail::log2_det(p.factor) + 1.0;
    table.attention_factor = static_cast<float>(p.attention_factor != 0.0 ? p.attention_factor : usual);
  }
  if (p.dynamic_base != nullptr) return;
  const double log2_base = core::detail::log2_det(p.base);
  const YarnRamp ramp = p.type == RopeType::yarn ? YarnRamp(p, log2_base) : YarnRamp();
  for (int i = 0; i < p.dim / 2; ++i) {
    double f = core::rope_frequency(log2_base, i, p.dim);
    if (p.type == RopeType::linear) f /= p.factor;
    if (p.type == RopeType::yarn) f -= f * ramp.at(i) * (1.0 - 1.0 / p.factor);
    if (p.type == RopeType::llama3) f = llama3_frequency(p, f);
    table.turn[i] = core::turn_fraction(f);
  }
}

[[gnu::noinline]] double scaled_base(double base, double factor, std::int32_t dim, double stretch) {
  const double exponent = static_cast<double>(dim) / (dim - 2);
  return base * core::detail::exp2_det(exponent * core::detail::log2_det(factor * stretch - (factor - 1.0)));
}

}  // namespace

core::RopeTable make_rope_table(const RopeParams& params, std::int32_t head_dim) {
  common::check_range("make_rope_table", "head_dim", head_dim, 16, 1024);
  check_params(params);
  if (params.type == RopeType::none) return {};

  core::RopeTable table;
  table.dim = params.dim;
  table.pairs = params.pairs;
  table.base = params.dynamic_base;
  table.mrope = params.mrope;
  std::copy_n(params.mrope_section, 3, table.mrope_section);
  table.mrope_position_ids = params.mrope_position_ids;
  table.mrope_offsets = params.mrope_offsets;
  table.mrope_length = params.mrope_length;
  table.mrope_delta = params.mrope_delta;
  common::check_range(kOwner, "dim", params.dim, 8, std::min(head_dim, 2 * core::kMaxRopePairs));
  common::check_rope_table(kOwner, table, head_dim);
  const common::FloatEnv env;
  fill_frequencies(params, table);
  return table;
}

double dynamic_rope_base(double base, double factor, std::int32_t dim, std::int32_t original_max_position,
                         std::int32_t prompt_len) {
  constexpr const char* kFunction = "dynamic_rope_base";
  const auto check = [](const char* field, double value) {
    if (!(value >= 1.0 && value <= kLargest)) common::reject(kFunction, field, value, "1 .. 1e30");
  };
  check("base", base);
  check("factor", factor);
  common::check_range(kFunction, "dim", dim, 4, 2 * core::kMaxRopePairs);
  common::check_at_least(kFunction, "original_max_position", original_max_position, 1);
  common::check_at_least(kFunction, "prompt_len", prompt_len, 0);
  if (prompt_len <= original_max_position || factor == 1.0) return base;
  const common::FloatEnv env;
  return scaled_base(base, factor, dim, static_cast<double>(prompt_len) / original_max_position);
}

}  // namespace pagedkv
