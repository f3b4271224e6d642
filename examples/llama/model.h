#pragma once
// A Llama model: everything but the attention itself, which is pagedkv's.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cache.h"
#include "config.h"
#include "linear.h"
#include "safetensors.h"

namespace llama {

class Model {
 public:
  /// @param weights  Hugging Face names; may be closed afterwards
  /// @throws pagedkv::Error (bad_file) if a weight is missing or has another shape than the config says
  Model(const Config& config, const TensorTable& weights, MatmulType matmul);

  const Config& config() const { return config_; }

  /// Runs the new tokens of some sequences through all layers; their keys and values go into the cache.
  /// @param hidden  [sum of new tokens][hidden_size] receives the normalised output of the last layer
  /// @throws pagedkv::Error (invalid_state) if the cache has no room for them
  void forward(PagedCache& cache, std::span<const NewTokens> batch, std::span<float> hidden);

  /// @param hidden  [rows][hidden_size] from forward()
  /// @param out     [rows][vocab_size]
  void logits(const float* hidden, std::int64_t rows, float* out);

 private:
  struct Layer {
    std::vector<float> attention_norm, mlp_norm;
    Linear qkv, attention_out, gate, up, down;
  };

  Layer load_layer(const TensorTable& weights, std::int32_t index);

  Config config_;
  std::unique_ptr<MatmulContext> context_;
  std::vector<float> embeddings_;
  std::vector<Layer> layers_;
  std::vector<float> final_norm_;
  std::unique_ptr<Linear> head_;
  std::vector<float> x_, normed_, qkv_, attended_, gated_, product_;  // activations of the running pass
};

/// Adds `tokens` to one sequence in pieces of at most `chunk`.
/// @param hidden  [tokens.size()][hidden_size]
void prefill(Model& model, PagedCache& cache, pagedkv::SequenceBlocks& sequence, std::span<const std::int32_t> tokens,
             std::int32_t chunk, std::span<float> hidden);

}  // namespace llama
