#pragma once
// Comparison with logits that an independent float64 implementation gave.

#include "model.h"
#include "safetensors.h"

namespace llama {

struct CheckResult {
  double difference = 0.0;  ///< largest |logit - expected logit|
  double allowed = 0.0;     ///< kCheckFactor times what plain NumPy in float32 is off by
  std::int64_t compared = 0;
  bool passed() const { return difference <= allowed; }
};

/// Another order of summation may be some times worse than NumPy's; a wrong formula is off by orders of magnitude.
inline constexpr double kCheckFactor = 4.0;

/// Runs the expected file's tokens through an f32 cache, in pieces of `chunk` tokens.
/// @param expected  tensors "tokens" int32 [n]; "rows" int32 [r] positions; "indices" int32 [r][m] vocabulary entries;
///                  "logits" float64 [r][m]; "f32_error" float64 [1]
/// @throws pagedkv::Error (bad_file)
CheckResult check_logits(Model& model, const TensorTable& expected, std::int32_t chunk, std::int32_t block_len,
                         int threads);

}  // namespace llama
