#pragma once
// The committed random models, their prompt and every logit of it in float64 (make_expected.py).

#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "tokens.h"

namespace llama::test {

struct TinyModel {
  explicit TinyModel(const std::string& style)
      : folder(std::string(PAGEDKV_TINY_MODELS) + "/" + style),
        config(read_config(folder + "/config.json")),
        weights(folder + "/model.safetensors"),
        expected(folder + "/expected.safetensors"),
        model(config, *weights, MatmulType::f32),
        tokens(read_tokens(*expected, config.vocab_size)),
        logits(expected->doubles("logits", {std::ssize(tokens), config.vocab_size})) {}

  /// Logits of the prompt's token t, as the float64 reference has them.
  std::span<const double> expected_row(std::size_t t) const {
    const auto vocab = static_cast<std::size_t>(config.vocab_size);
    return std::span(logits).subspan(t * vocab, vocab);
  }

  std::string folder;
  Config config;
  TensorFile weights;
  TensorFile expected;
  Model model;
  std::vector<std::int32_t> tokens;
  std::vector<double> logits;
};

}  // namespace llama::test
