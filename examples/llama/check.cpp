#include "check.h"

#include <algorithm>
#include <cmath>

#include "tokens.h"

namespace llama {

CheckResult check_logits(Model& model, const TensorTable& expected, std::int32_t chunk, std::int32_t block_len,
                         int threads) {
  const Config& config = model.config();
  const auto tokens = read_tokens(expected, config.vocab_size);
  const auto rows = expected.ints("rows");
  check_tokens(rows, static_cast<std::int32_t>(tokens.size()), "rows");
  const auto row_count = static_cast<std::int64_t>(rows.size());
  const auto width = static_cast<std::int64_t>(row_count == 0 ? 0 : expected.at("indices").elements() / row_count);
  const auto indices = expected.ints("indices", {row_count, width});
  check_tokens(indices, config.vocab_size, "indices");
  const auto logits = expected.doubles("logits", {row_count, width});

  CheckResult result;
  result.allowed = kCheckFactor * expected.doubles("f32_error", {1}).front();
  result.compared = row_count * width;

  const auto count = static_cast<std::int32_t>(tokens.size());
  PagedCache cache(config, {pagedkv::DType::f32, {}}, block_len, count / block_len + 1, threads);
  auto sequence = cache.new_sequence();
  std::vector<float> hidden(tokens.size() * static_cast<std::size_t>(config.hidden_size));
  prefill(model, cache, sequence, tokens, chunk, hidden);
  std::vector<float> row_logits(static_cast<std::size_t>(config.vocab_size));
  for (std::int64_t r = 0; r < row_count; ++r) {
    model.logits(hidden.data() + std::int64_t{rows[static_cast<std::size_t>(r)]} * config.hidden_size, 1,
                 row_logits.data());
    for (auto i = static_cast<std::size_t>(r * width); i < static_cast<std::size_t>((r + 1) * width); ++i) {
      const double got = double{row_logits[static_cast<std::size_t>(indices[i])]};
      const double difference = std::abs(got - logits[i]);
      // Written so that a NaN counts as the largest difference.
      if (!(difference <= result.difference)) result.difference = std::isnan(difference) ? HUGE_VAL : difference;
    }
  }
  return result;
}

}  // namespace llama
