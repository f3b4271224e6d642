#include "model.h"

#include <algorithm>
#include <string>

#include "elementwise.h"
#include "pagedkv/error.h"
#include "tokens.h"

namespace llama {

Model::Model(const Config& config, const TensorTable& weights, MatmulType matmul)
    : config_(config), context_(std::make_unique<MatmulContext>(matmul)) {
  const std::string embeddings = "model.embed_tokens.weight";
  const std::int64_t vocab = config.vocab_size;
  const std::int64_t width = config.hidden_size;
  embeddings_ = weights.floats(embeddings, {vocab, width});
  for (std::int32_t i = 0; i < config.layers; ++i) layers_.push_back(load_layer(weights, i));
  final_norm_ = weights.floats("model.norm.weight", {width});
  if (config.tied_embeddings) {
    head_ = std::make_unique<Linear>(*context_, embeddings_, vocab, width);
  } else {
    head_ = std::make_unique<Linear>(*context_, weights.floats("lm_head.weight", {vocab, width}), vocab, width);
  }
}

Model::Layer Model::load_layer(const TensorTable& weights, std::int32_t index) {
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const std::int64_t width = config_.hidden_size;
  const std::int64_t inner = config_.intermediate_size;
  const auto load = [&](const char* tensor, const std::vector<std::int64_t>& shape) {
    return weights.floats(prefix + tensor + ".weight", shape);
  };
  const auto linear = [&](const char* tensor, std::int64_t outputs, std::int64_t inputs, Linear::Then then) {
    return Linear(*context_, load(tensor, {outputs, inputs}), outputs, inputs, then);
  };

  std::vector<float> qkv = load("self_attn.q_proj", {config_.q_size(), width});
  for (const char* tensor : {"self_attn.k_proj", "self_attn.v_proj"}) {
    const auto part = load(tensor, {config_.kv_size(), width});
    qkv.insert(qkv.end(), part.begin(), part.end());
  }
  return {load("input_layernorm", {width}),
          load("post_attention_layernorm", {width}),
          Linear(*context_, qkv, config_.q_size() + 2 * config_.kv_size(), width),
          linear("self_attn.o_proj", width, config_.q_size(), Linear::Then::add),
          linear("mlp.gate_proj", inner, width, Linear::Then::silu),
          linear("mlp.up_proj", inner, width, Linear::Then::multiply),
          linear("mlp.down_proj", width, inner, Linear::Then::add)};
}

void Model::forward(PagedCache& cache, std::span<const NewTokens> batch, std::span<float> hidden) {
  for (const NewTokens& item : batch) check_tokens(item.tokens, config_.vocab_size, "tokens");
  Step step(cache, batch);
  const std::int64_t rows = step.rows();
  const std::int64_t width = config_.hidden_size;
  if (static_cast<std::int64_t>(hidden.size()) != rows * width) {
    throw pagedkv::Error(pagedkv::ErrorCode::invalid_argument, "hidden.size()", std::to_string(hidden.size()),
                         std::to_string(rows * width));
  }
  const auto resize = [rows](std::vector<float>& v, std::int64_t columns) {
    v.resize(static_cast<std::size_t>(rows * columns));
    return v.data();
  };
  float* x = resize(x_, width);
  float* normed = resize(normed_, width);
  float* qkv = resize(qkv_, config_.q_size() + 2 * config_.kv_size());
  float* attended = resize(attended_, config_.q_size());
  float* gated = resize(gated_, config_.intermediate_size);
  float* product = resize(product_, config_.intermediate_size);

  float* row = x;
  for (const NewTokens& item : batch) {
    gather_rows(embeddings_, item.tokens, width, row);
    row += static_cast<std::int64_t>(item.tokens.size()) * width;
  }
  for (std::int32_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[static_cast<std::size_t>(i)];
    rms_norm(x, layer.attention_norm, config_.rms_norm_eps, rows, normed);
    layer.qkv.run(rows, normed, qkv);
    step.attend(i, qkv, attended);
    layer.attention_out.run(rows, attended, x);
    rms_norm(x, layer.mlp_norm, config_.rms_norm_eps, rows, normed);
    layer.gate.run(rows, normed, gated);
    layer.up.run(rows, normed, product, gated);
    layer.down.run(rows, product, x);
  }
  rms_norm(x, final_norm_, config_.rms_norm_eps, rows, hidden.data());
}

void Model::logits(const float* hidden, std::int64_t rows, float* out) {
  head_->run(rows, hidden, out);
}

void prefill(Model& model, PagedCache& cache, pagedkv::SequenceBlocks& sequence, std::span<const std::int32_t> tokens,
             std::int32_t chunk, std::span<float> hidden) {
  const auto width = static_cast<std::size_t>(model.config().hidden_size);
  for (std::size_t at = 0; at < tokens.size();) {
    const std::size_t n = std::min(tokens.size() - at, static_cast<std::size_t>(chunk));
    const NewTokens piece{&sequence, tokens.subspan(at, n)};
    model.forward(cache, {&piece, 1}, hidden.subspan(at * width, n * width));
    at += n;
  }
}

}  // namespace llama
