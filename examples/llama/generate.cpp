#include "generate.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

namespace llama {

std::vector<std::int32_t> top_tokens(std::span<const float> logits, std::int32_t count) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto better = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const auto n = std::min<std::ptrdiff_t>(count, std::ssize(order));
  std::partial_sort(order.begin(), order.begin() + n, order.end(), better);
  order.resize(static_cast<std::size_t>(n));
  return order;
}

Generated generate(Model& model, PagedCache& cache, std::vector<pagedkv::SequenceBlocks> sequences,
                   std::span<const std::int32_t> first, std::int32_t count, std::span<const std::int32_t> end_tokens) {
  using Clock = std::chrono::steady_clock;
  const auto width = static_cast<std::size_t>(model.config().hidden_size);
  const auto vocab = static_cast<std::size_t>(model.config().vocab_size);

  struct Running {
    std::size_t index;
    pagedkv::SequenceBlocks blocks;
    std::int32_t token;
  };
  Generated out;
  out.tokens.resize(sequences.size());
  std::vector<Running> running;
  for (std::size_t i = 0; i < sequences.size(); ++i) running.push_back({i, std::move(sequences[i]), first[i]});

  std::vector<float> hidden(running.size() * width);
  std::vector<float> logits(running.size() * vocab);
  std::vector<NewTokens> batch;
  for (;;) {
    std::erase_if(running, [&](Running& r) {
      auto& written = out.tokens[r.index];
      if (std::find(end_tokens.begin(), end_tokens.end(), r.token) != end_tokens.end()) return true;
      written.push_back(r.token);
      return static_cast<std::int32_t>(written.size()) == count;
    });
    if (running.empty()) return out;
    batch.clear();
    for (Running& r : running) batch.push_back({&r.blocks, {&r.token, 1}});
    const auto start = Clock::now();
    const auto rows = static_cast<std::int64_t>(batch.size());
    model.forward(cache, batch, std::span(hidden).first(batch.size() * width));
    model.logits(hidden.data(), rows, logits.data());
    for (std::size_t i = 0; i < running.size(); ++i) {
      const auto row = std::span(logits).subspan(i * vocab, vocab);
      running[i].token = static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    }
    if (running.size() == out.tokens.size()) {
      out.step_seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
  }
}

}  // namespace llama
