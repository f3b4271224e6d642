#pragma once
// What the sequences of a test hold, whatever block table, strides, chunks or batch they are written with.

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "oracle/layout.h"
#include "oracle/rope.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/ops.h"
#include "support/random.h"

namespace support {

struct Content {
  pagedkv::CacheConfig config;  ///< block_len is the arrangement's (cache.h)
  int layer = 0;
  pagedkv::ContextParallel cp;
  std::vector<int> lengths;            ///< tokens of each sequence
  std::vector<std::vector<double>> k;  ///< per sequence [token][head][head_dim], exact in the dtype
  std::vector<std::vector<double>> v;
  std::vector<double> k_bias;  ///< [head][head_dim], or empty
  std::vector<double> v_bias;
  pagedkv::RopeParams rope;                         ///< without its pointers
  std::vector<float> dynamic_base;                  ///< per sequence, or empty
  std::vector<int> mrope_length;                    ///< per sequence, or empty
  std::vector<std::array<int, 3>> mrope_positions;  ///< with mrope_length: [sequence * longest + token]
  std::vector<int> mrope_delta;                     ///< per sequence, or empty

  int batch() const { return static_cast<int>(lengths.size()); }
  int longest() const;

  /// The oracle's RoPE of a sequence, and the position of a token per axis.
  oracle::Rope rope_of(int sequence) const;
  std::array<long long, 3> position_of(int sequence, int token) const;
};

/// What may appear in a generated content besides Gaussian rows with a few loud channels.
struct Spice {
  bool degenerate_rows = false;  ///< constant, tiny, huge, NaN and infinite ones
  bool bias = false;
  bool rope = false;
};

/// Random content for a configuration.
Content make_content(const pagedkv::CacheConfig& config, const std::vector<int>& lengths, Spice spice, Random& random);

/// A row as the cache ought to hold it: after bias and RoPE, in double, with the error that float32 arithmetic may add.
struct ExpectedRow {
  std::vector<double> x;
  double error = 0;
};
ExpectedRow expected_row(const Content& c, int sequence, int token, int head, oracle::Side side);

}  // namespace support
