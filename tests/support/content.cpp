#include "support/content.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "support/convert.h"

namespace support {
namespace {

using pagedkv::MropeMode;
using pagedkv::RopePairs;
using pagedkv::RopeType;

/// A row of n values of the type.
std::vector<double> random_row(std::size_t n, oracle::Type type, Spice spice, Random& random) {
  std::vector<double> row(n);
  for (std::size_t i = 0; i < n; ++i) row[i] = random.normal() * (i % 23 == 7 ? 8 : 1);
  if (spice.degenerate_rows && random.chance(3)) {
    // With RoPE every product and sum stays finite: whether one just beyond the limit rounds to infinity is chance.
    const double largest = type == oracle::Type::f16 ? (spice.rope ? 3e4 : 65504) : (spice.rope ? 1e38 : 3e38);
    const double value = random.normal();
    switch (random.integer(0, 6)) {
      case 0:
        std::fill(row.begin(), row.end(), value);
        break;
      case 1:
        std::fill(row.begin(), row.end(), 0.0);
        break;
      case 2:
        for (double& x : row) x *= type == oracle::Type::f16 ? 1e-6 : 1e-37;
        break;
      case 3:
        for (double& x : row) x = std::copysign(largest, x);
        break;
      case 4:
        row[n / 3] = std::numeric_limits<double>::infinity();
        break;
      case 5:
        row[n / 2] = std::numeric_limits<double>::quiet_NaN();
        break;
      default:
        for (double& x : row) x = value + 1e-3 * x;
    }
  }
  for (double& x : row) x = oracle::round_to(type, x);
  return row;
}

void add_bias(Content& c, oracle::Type type, Random& random) {
  const auto n = static_cast<std::size_t>(c.config.kv_heads) * static_cast<std::size_t>(c.config.head_dim);
  c.k_bias = random_row(n, type, {}, random);
  if (!c.config.shared_kv) c.v_bias = random_row(n, type, {}, random);
}

void add_mrope(Content& c, Random& random) {
  const int pairs = c.rope.dim / 2;
  c.rope.mrope = random.chance(2) ? MropeMode::chunked : MropeMode::interleaved;
  if (c.rope.mrope == MropeMode::chunked) {
    const int t = random.integer(0, pairs);
    const int h = random.integer(0, pairs - t);
    c.rope.mrope_section[0] = t;
    c.rope.mrope_section[1] = h;
    c.rope.mrope_section[2] = pairs - t - h;
  } else {
    for (int& section : c.rope.mrope_section) section = random.integer(0, pairs / 3);
  }
  const int longest = c.longest();
  c.mrope_positions.resize(static_cast<std::size_t>(longest) * c.lengths.size());
  for (auto& p : c.mrope_positions) p = {random.integer(0, 999), random.integer(0, 999), random.integer(0, 999)};
  for (const int length : c.lengths) {
    c.mrope_length.push_back(random.integer(0, length));
    c.mrope_delta.push_back(random.integer(-length, 1000));
  }
}

void add_rope(Content& c, Random& random) {
  pagedkv::RopeParams& r = c.rope;
  r.pairs = random.chance(2) ? RopePairs::interleaved : RopePairs::half_split;
  const int unit = r.pairs == RopePairs::interleaved ? 8 : 16;
  r.dim = unit * random.integer(1, std::min(c.config.head_dim, 256) / unit);
  constexpr RopeType kTypes[] = {RopeType::standard, RopeType::linear, RopeType::dynamic, RopeType::yarn,
                                 RopeType::llama3};
  r.type = kTypes[random.integer(0, 4)];
  r.base = random.chance(2) ? 10000.0 : 500000.0;
  if (r.type == RopeType::linear || r.type == RopeType::yarn || r.type == RopeType::llama3) {
    r.factor = random.integer(1, 16);
  }
  r.original_max_position = 1024 * random.integer(1, 8);
  if (r.type == RopeType::yarn && random.chance(2)) r.attention_factor = 1.25;
  if (r.type == RopeType::dynamic) {
    for (int b = 0; b < c.batch(); ++b) {
      c.dynamic_base.push_back(static_cast<float>(10000.0 * random.integer(1, 50)));
    }
  }
  if (random.chance(3)) add_mrope(c, random);
}

oracle::RopeKind kind_of(RopeType t) {
  switch (t) {
    case RopeType::none:
      return oracle::RopeKind::none;
    case RopeType::standard:
      return oracle::RopeKind::standard;
    case RopeType::linear:
      return oracle::RopeKind::linear;
    case RopeType::dynamic:
      return oracle::RopeKind::dynamic;
    case RopeType::yarn:
      return oracle::RopeKind::yarn;
    case RopeType::llama3:
      return oracle::RopeKind::llama3;
  }
  return oracle::RopeKind::none;
}

}  // namespace

int Content::longest() const {
  return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
}

oracle::Rope Content::rope_of(int sequence) const {
  oracle::Rope r;
  r.kind = kind_of(rope.type);
  r.half_split = rope.pairs == RopePairs::half_split;
  r.dim = rope.dim;
  r.base = dynamic_base.empty() ? rope.base : static_cast<double>(dynamic_base[static_cast<std::size_t>(sequence)]);
  r.factor = rope.factor;
  r.original_max_position = rope.original_max_position;
  r.attention_factor = rope.attention_factor;
  r.beta_fast = rope.beta_fast;
  r.beta_slow = rope.beta_slow;
  r.low_freq_factor = rope.low_freq_factor;
  r.high_freq_factor = rope.high_freq_factor;
  r.mrope = rope.mrope == MropeMode::none      ? oracle::MropeKind::none
            : rope.mrope == MropeMode::chunked ? oracle::MropeKind::chunked
                                               : oracle::MropeKind::interleaved;
  r.section = {rope.mrope_section[0], rope.mrope_section[1], rope.mrope_section[2]};
  return r;
}

std::array<long long, 3> Content::position_of(int sequence, int token) const {
  const auto b = static_cast<std::size_t>(sequence);
  if (!mrope_length.empty() && token < mrope_length[b]) {
    const auto& p = mrope_positions[b * static_cast<std::size_t>(longest()) + static_cast<std::size_t>(token)];
    return {p[0], p[1], p[2]};
  }
  const long long at = token + (mrope_delta.empty() ? 0LL : mrope_delta[b]);
  return {at, at, at};
}

Content make_content(const pagedkv::CacheConfig& config, const std::vector<int>& lengths, Spice spice, Random& random) {
  Content c;
  c.config = config;
  c.layer = random.integer(0, config.layers - 1);
  c.lengths = lengths;
  const oracle::Type type = to_oracle(config.dtype);
  for (const int length : lengths) {
    for (auto* side : {&c.k, &c.v}) {
      side->emplace_back();
      for (int row = 0; row < length * config.kv_heads; ++row) {
        const auto values = random_row(static_cast<std::size_t>(config.head_dim), type, spice, random);
        side->back().insert(side->back().end(), values.begin(), values.end());
      }
    }
  }
  if (spice.bias) add_bias(c, type, random);
  if (spice.rope) add_rope(c, random);
  return c;
}

ExpectedRow expected_row(const Content& c, int sequence, int token, int head, oracle::Side side) {
  const bool key = side == oracle::Side::key || c.config.shared_kv;
  const auto dim = static_cast<std::ptrdiff_t>(c.config.head_dim);
  const auto& source = (key ? c.k : c.v)[static_cast<std::size_t>(sequence)];
  const auto first = source.begin() + (std::ptrdiff_t{token} * c.config.kv_heads + head) * dim;
  ExpectedRow row{{first, first + dim}, 0};
  const auto& bias = key ? c.k_bias : c.v_bias;
  const bool rotated = key && c.rope.type != RopeType::none;
  for (std::size_t d = 0; d < row.x.size() && !bias.empty(); ++d) {
    row.x[d] += bias[static_cast<std::size_t>(head * dim) + d];
  }
  double largest = 0;
  for (const double x : row.x) largest = std::isfinite(x) ? std::max(largest, std::fabs(x)) : largest;
  if (!bias.empty()) row.error += 1.2e-7 * largest;
  if (rotated) {
    const oracle::Rope rope = c.rope_of(sequence);
    oracle::rotate(rope, c.position_of(sequence, token), row.x);
    // Sine and cosine within 1.2e-7 and a few float32 roundings, of two terms.
    row.error += 1e-6 * largest * static_cast<double>(oracle::magnitude(rope));
  }
  return row;
}

}  // namespace support
