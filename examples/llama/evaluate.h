#pragma once
// A text through the model once per cache format, in sliding windows, and what that says about each format.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "generate.h"
#include "metrics.h"
#include "model.h"
#include "tokens.h"

namespace llama {

struct Settings {
  std::vector<CacheFormat> formats;  ///< the first is the reference
  std::int32_t windows = 19;
  std::int32_t window = 2048;  ///< tokens
  std::int32_t stride = 1024;  ///< tokens between the beginnings of windows; 1 .. window-1
  std::int32_t chunk = 512;    ///< new tokens of one forward pass
  std::int32_t block_len = 64;
  std::int32_t decode_batch = 8;   ///< sequences that continue the last window
  std::int32_t decode_steps = 16;  ///< timed
  std::int32_t new_tokens = 48;    ///< of each sample continuation
  int threads = 0;

  /// Tokens that the windows cover.
  std::int64_t text_tokens() const { return window + std::int64_t{windows - 1} * stride; }
};

/// What one format gave.
struct FormatResult {
  CacheFormat format;
  double bits_per_element = 0.0;
  double bytes_per_token = 0.0;
  double perplexity = 0.0;
  Estimate difference;          ///< of the perplexity from the reference's
  double mean_kl = 0.0;         ///< nats per token
  double top1_agreement = 0.0;  ///< share of positions where the most likely token is the reference's
  double prefill_rate = 0.0;    ///< tokens per second through all layers; the output layer is not counted
  double decode_rate = 0.0;     ///< tokens per second of the whole batch, output layer included
  std::vector<std::vector<std::int32_t>> samples;  ///< continuation of each prompt
};

/// Tokens of a block of perplexity_difference().
inline constexpr std::size_t kErrorBlock = 128;

/// Receives one line of progress at a time.
using Progress = std::function<void(const std::string&)>;

/// @param text  at least settings.text_tokens() tokens
std::vector<FormatResult> evaluate(Model& model, const Settings& settings, std::span<const std::int32_t> text,
                                   std::span<const Prompt> prompts, const Progress& progress);

}  // namespace llama
