#include "evaluate.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

namespace llama {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kScoredRows = 128;         // rows of logits in memory at a time
constexpr std::int32_t kDecodedBeforeTiming = 2;  // steps that compile kernels and fill caches

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::int32_t blocks_for(std::int32_t tokens, std::int32_t block_len) {
  return (tokens + block_len - 1) / block_len;
}

/// What accumulates over the windows for one format.
struct Run {
  CacheFormat format;
  std::unique_ptr<PagedCache> cache;
  std::vector<float> hidden;  // of the running window
  std::vector<double> nll;    // of every scored token
  double kl_sum = 0.0;
  std::int64_t agreed = 0;
  double prefill_seconds = 0.0;
  double decode_rate = 0.0;
};

/// Logits of some rows and their sums.
struct Rows {
  std::vector<float> logits;
  std::vector<Softmax> sums;
};

class Evaluation {
 public:
  Evaluation(Model& model, const Settings& settings, std::span<const std::int32_t> text)
      : model_(model), settings_(settings), text_(text) {
    const auto window = static_cast<std::size_t>(settings.window);
    const std::int32_t grown = kDecodedBeforeTiming + settings.decode_steps;
    const std::int32_t blocks = blocks_for(settings.window, settings.block_len) +
                                settings.decode_batch * (blocks_for(grown, settings.block_len) + 1);
    for (const CacheFormat& format : settings.formats) {
      Run& run = runs_.emplace_back();
      run.format = format;
      run.cache = std::make_unique<PagedCache>(model.config(), format, settings.block_len, blocks, settings.threads);
      run.hidden.resize(window * width());
    }
    probabilities_.resize(static_cast<std::size_t>(kScoredRows) * vocab());
  }

  void window(std::int32_t index, const Progress& progress) {
    const auto tokens = text_.subspan(static_cast<std::size_t>(index) * static_cast<std::size_t>(settings_.stride),
                                      static_cast<std::size_t>(settings_.window));
    std::string line;
    for (Run& run : runs_) {
      auto sequence = run.cache->new_sequence();
      const auto start = Clock::now();
      prefill(model_, *run.cache, sequence, tokens, settings_.chunk, run.hidden);
      const double seconds = seconds_since(start);
      run.prefill_seconds += seconds;
      if (index == settings_.windows - 1) run.decode_rate = decode_rate(run, std::move(sequence));
      char text[80];
      std::snprintf(text, sizeof text, "%s%s %.1f s", line.empty() ? "" : ", ", label(run.format).c_str(), seconds);
      line += text;
    }
    // The first window scores every token but its first; the others the last `stride`. Row t predicts token t + 1.
    score(tokens, index == 0 ? 0 : settings_.window - settings_.stride - 1);
    const double left = seconds_since(begin_) / (index + 1) * (settings_.windows - index - 1);
    char head[80];
    std::snprintf(head, sizeof head, "window %2d of %d (%.0f s to go): ", index + 1, settings_.windows, left);
    progress(head + line);
  }

  std::vector<FormatResult> results() const {
    std::vector<FormatResult> results;
    const Run& reference = runs_.front();
    for (const Run& run : runs_) {
      const auto scored = static_cast<double>(run.nll.size());
      FormatResult r;
      r.format = run.format;
      r.bits_per_element = run.cache->bits_per_element();
      r.bytes_per_token = run.cache->bytes_per_token();
      r.perplexity = perplexity(run.nll);
      r.difference = perplexity_difference(run.nll, reference.nll, kErrorBlock);
      r.mean_kl = run.kl_sum / scored;
      r.top1_agreement = static_cast<double>(run.agreed) / scored;
      r.prefill_rate = static_cast<double>(settings_.windows) * settings_.window / run.prefill_seconds;
      r.decode_rate = run.decode_rate;
      results.push_back(std::move(r));
    }
    return results;
  }

 private:
  std::size_t width() const { return static_cast<std::size_t>(model_.config().hidden_size); }
  std::size_t vocab() const { return static_cast<std::size_t>(model_.config().vocab_size); }

  /// Tokens per second of a batch of sequences that all continue one window, each with another first token.
  double decode_rate(Run& run, pagedkv::SequenceBlocks window) {
    if (settings_.decode_batch == 0 || settings_.decode_steps == 0) return 0.0;
    std::vector<float> logits(vocab());
    model_.logits(run.hidden.data() + run.hidden.size() - width(), 1, logits.data());
    const auto first = top_tokens(logits, settings_.decode_batch);
    std::vector<pagedkv::SequenceBlocks> sequences;
    for (std::size_t i = 0; i < first.size(); ++i) sequences.push_back(window.fork(window.tokens()));
    const std::int32_t count = 1 + kDecodedBeforeTiming + settings_.decode_steps;
    auto times = generate(model_, *run.cache, std::move(sequences), first, count, {}).step_seconds;
    times.erase(times.begin(), times.begin() + kDecodedBeforeTiming);
    return static_cast<double>(first.size()) / median(std::move(times));
  }

  void score(std::span<const std::int32_t> tokens, std::int64_t first_row) {
    const std::int64_t end = settings_.window - 1;
    for (std::int64_t row = first_row; row < end; row += kScoredRows) {
      const std::int64_t rows = std::min(kScoredRows, end - row);
      const auto targets = tokens.subspan(static_cast<std::size_t>(row) + 1, static_cast<std::size_t>(rows));
      for (Run& run : runs_) score_rows(run, row, targets);
    }
  }

  /// Runs come reference first, so that its rows and probabilities are there for the others.
  void score_rows(Run& run, std::int64_t first_row, std::span<const std::int32_t> targets) {
    const bool is_reference = &run == &runs_.front();
    const std::size_t n = vocab();
    const auto rows = static_cast<std::int64_t>(targets.size());
    Rows& mine = is_reference ? reference_ : other_;
    mine.logits.resize(targets.size() * n);
    mine.sums.resize(targets.size());
    model_.logits(run.hidden.data() + first_row * static_cast<std::int64_t>(width()), rows, mine.logits.data());

    const std::size_t scored = run.nll.size();
    run.nll.resize(scored + targets.size());
    std::vector<double> kl(targets.size());
#pragma omp parallel for
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto i = static_cast<std::size_t>(r);
      const auto logits = std::span<const float>(mine.logits).subspan(i * n, n);
      const auto p = std::span(probabilities_).subspan(i * n, n);
      mine.sums[i] = softmax(logits);
      run.nll[scored + i] = mine.sums[i].log_sum_exp - double{logits[static_cast<std::size_t>(targets[i])]};
      if (is_reference) {
        probabilities(logits, mine.sums[i], p);
      } else {
        const auto expected = std::span<const float>(reference_.logits).subspan(i * n, n);
        kl[i] = kl_divergence(p, expected, reference_.sums[i], logits, mine.sums[i]);
      }
    }
    for (std::size_t i = 0; i < targets.size(); ++i) {
      run.kl_sum += kl[i];
      run.agreed += mine.sums[i].best == reference_.sums[i].best ? 1 : 0;
    }
  }

  Model& model_;
  const Settings& settings_;
  std::span<const std::int32_t> text_;
  std::vector<Run> runs_;
  Rows reference_;
  Rows other_;
  std::vector<float> probabilities_;  // of the reference's rows
  Clock::time_point begin_ = Clock::now();
};

/// All prompts as one ragged batch: their prefill is one forward pass, and they decode together.
std::vector<std::vector<std::int32_t>> continue_prompts(Model& model, const Settings& settings,
                                                        const CacheFormat& format, std::span<const Prompt> prompts) {
  const auto width = static_cast<std::size_t>(model.config().hidden_size);
  std::int32_t blocks = 0;
  std::size_t rows = 0;
  for (const Prompt& prompt : prompts) {
    const auto length = static_cast<std::int32_t>(prompt.tokens.size()) + settings.new_tokens;
    blocks += blocks_for(length, settings.block_len);
    rows += prompt.tokens.size();
  }
  PagedCache cache(model.config(), format, settings.block_len, blocks, settings.threads);
  std::vector<pagedkv::SequenceBlocks> sequences;
  for (std::size_t i = 0; i < prompts.size(); ++i) sequences.push_back(cache.new_sequence());
  std::vector<NewTokens> batch;
  for (std::size_t i = 0; i < prompts.size(); ++i) batch.push_back({&sequences[i], prompts[i].tokens});
  std::vector<float> hidden(rows * width);
  model.forward(cache, batch, hidden);

  std::vector<std::int32_t> first;
  std::vector<float> logits(static_cast<std::size_t>(model.config().vocab_size));
  std::size_t end = 0;
  for (const Prompt& prompt : prompts) {
    end += prompt.tokens.size();
    model.logits(hidden.data() + (end - 1) * width, 1, logits.data());
    first.push_back(top_tokens(logits, 1).front());
  }
  return generate(model, cache, std::move(sequences), first, settings.new_tokens, model.config().eos_tokens).tokens;
}

}  // namespace

std::vector<FormatResult> evaluate(Model& model, const Settings& settings, std::span<const std::int32_t> text,
                                   std::span<const Prompt> prompts, const Progress& progress) {
  Evaluation evaluation(model, settings, text);
  for (std::int32_t i = 0; i < settings.windows; ++i) evaluation.window(i, progress);
  auto results = evaluation.results();
  if (prompts.empty() || settings.new_tokens == 0) return results;
  progress("continuing the prompts with every format");
  for (FormatResult& result : results) {
    result.samples = continue_prompts(model, settings, result.format, prompts);
  }
  return results;
}

}  // namespace llama
