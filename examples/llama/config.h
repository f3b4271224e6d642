#pragma once
// The shape of a Llama model, read from its config.json (Hugging Face names).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pagedkv/ops.h"

namespace llama {

struct Config {
  std::int32_t vocab_size = 0;
  std::int32_t hidden_size = 0;
  std::int32_t intermediate_size = 0;
  std::int32_t layers = 0;
  std::int32_t q_heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  float rms_norm_eps = 0.0F;
  bool tied_embeddings = false;
  std::vector<std::int32_t> eos_tokens;  ///< each ends a generated text
  pagedkv::RopeParams rope;

  std::int32_t q_size() const { return q_heads * head_dim; }
  std::int32_t kv_size() const { return kv_heads * head_dim; }
};

/// Keys used: model_type ("llama"), vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
/// num_key_value_heads, head_dim, rms_norm_eps, rope_theta, rope_scaling (linear, yarn, llama3), tie_word_embeddings,
/// eos_token_id, attention_bias, mlp_bias, hidden_act; and one of our own: rope_style, "half_split" (the default,
/// Hugging Face's weights) or "interleaved" (weights that come from a GGUF file).
/// @param name  what error messages call the file
/// @throws pagedkv::Error (bad_file) naming the key, its value and what is accepted
Config parse_config(std::string_view text, const std::string& name);

/// @throws pagedkv::Error (bad_file)
Config read_config(const std::string& path);

}  // namespace llama
