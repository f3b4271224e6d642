#pragma once
// Greedy decoding of a batch of sequences.

#include <cstdint>
#include <span>
#include <vector>

#include "model.h"

namespace llama {

struct Generated {
  std::vector<std::vector<std::int32_t>> tokens;  ///< of each sequence, its first token included, the end token not
  std::vector<double> step_seconds;               ///< of each step that all sequences took part in
};

/// Continues every sequence by its first token and then by the most likely one, up to `count` tokens. A sequence that
/// reaches an end token leaves the batch and its blocks go back to the pool.
/// @param first       one token per sequence, not yet in the cache
/// @param end_tokens  may be empty
Generated generate(Model& model, PagedCache& cache, std::vector<pagedkv::SequenceBlocks> sequences,
                   std::span<const std::int32_t> first, std::int32_t count, std::span<const std::int32_t> end_tokens);

/// The `count` most likely tokens of one row of logits, best first; of equals the lower token.
std::vector<std::int32_t> top_tokens(std::span<const float> logits, std::int32_t count);

}  // namespace llama
