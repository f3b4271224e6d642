#include "generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "evaluate.h"
#include "report.h"
#include "tiny_model.h"

namespace llama {
namespace {

using pagedkv::DType;
using test::TinyModel;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(TopTokens, BestFirstAndTheLowerOfEquals) {
  const std::vector<float> logits{1.0F, 5.0F, 3.0F, 5.0F};
  EXPECT_THAT(top_tokens(logits, 3), ElementsAre(1, 3, 2));
  EXPECT_THAT(top_tokens(logits, 9), ElementsAre(1, 3, 2, 0));
}

/// The most likely token after `tokens`, by one pass over all of them.
std::int32_t next_token(TinyModel& tiny, const std::vector<std::int32_t>& tokens) {
  PagedCache cache(tiny.config, {DType::f32, {}}, 16, 8, 2);
  auto sequence = cache.new_sequence();
  std::vector<float> hidden(tokens.size() * 32);
  prefill(tiny.model, cache, sequence, tokens, 100, hidden);
  std::vector<float> logits(96);
  tiny.model.logits(hidden.data() + (tokens.size() - 1) * 32, 1, logits.data());
  return top_tokens(logits, 1).front();
}

/// Two forks of one prompt that continue it with different first tokens, as the decode measurement does.
struct Forks {
  explicit Forks(TinyModel& tiny) : cache(tiny.config, {DType::f32, {}}, 16, 16, 2) {
    auto prompt = cache.new_sequence();
    std::vector<float> hidden(20 * 32);
    prefill(tiny.model, cache, prompt, std::span(tiny.tokens).first(20), 100, hidden);
    for (int i = 0; i < 2; ++i) sequences.push_back(prompt.fork(20));
  }
  PagedCache cache;
  std::vector<pagedkv::SequenceBlocks> sequences;
};

TEST(Generate, DecodingForksGivesWhatFullPassesGive) {
  TinyModel tiny("interleaved");
  Forks forks(tiny);
  const std::array<std::int32_t, 2> first{3, 77};
  const auto out = generate(tiny.model, forks.cache, std::move(forks.sequences), first, 12, {});
  ASSERT_EQ(out.tokens.size(), 2U);
  EXPECT_EQ(out.step_seconds.size(), 11U);
  for (std::size_t s = 0; s < 2; ++s) {
    ASSERT_EQ(out.tokens[s].size(), 12U);
    EXPECT_EQ(out.tokens[s][0], first[s]);
    std::vector<std::int32_t> text(tiny.tokens.begin(), tiny.tokens.begin() + 20);
    for (std::size_t i = 0; i + 1 < out.tokens[s].size(); ++i) {
      text.push_back(out.tokens[s][i]);
      EXPECT_EQ(next_token(tiny, text), out.tokens[s][i + 1]) << "sequence " << s << ", token " << i + 1;
    }
  }
}

TEST(Generate, AnEndTokenStopsItsSequenceOnly) {
  TinyModel tiny("interleaved");
  const std::array<std::int32_t, 2> first{3, 77};
  Forks free_run(tiny);
  const auto whole = generate(tiny.model, free_run.cache, std::move(free_run.sequences), first, 12, {}).tokens;
  const std::int32_t end = whole[0][5];
  const auto cut = [end](const std::vector<std::int32_t>& tokens) {
    return std::vector<std::int32_t>(tokens.begin(), std::find(tokens.begin(), tokens.end(), end));
  };
  Forks stopped(tiny);
  const std::array<std::int32_t, 1> ends{end};
  const auto out = generate(tiny.model, stopped.cache, std::move(stopped.sequences), first, 12, ends).tokens;
  EXPECT_EQ(out[0], cut(whole[0]));
  EXPECT_LE(out[0].size(), 5U);
  EXPECT_EQ(out[1], cut(whole[1]));
}

struct Evaluated {
  Evaluated() {
    settings.formats = {parse_format("f32", DType::f16), parse_format("f32", DType::f16),
                        parse_format("int4", DType::f16)};
    settings.windows = 1;
    settings.window = 40;
    settings.stride = 20;
    settings.chunk = 16;
    settings.block_len = 16;
    settings.decode_batch = 2;
    settings.decode_steps = 2;
    settings.new_tokens = 5;
    settings.threads = 2;
  }
  std::vector<FormatResult> run(std::span<const std::int32_t> text) {
    return evaluate(tiny.model, settings, text, prompts, [this](const std::string& line) { lines.push_back(line); });
  }
  TinyModel tiny{"half_split"};
  Settings settings;
  std::vector<Prompt> prompts{{"a", {1, 2, 3}}, {"b", {4}}};
  std::vector<std::string> lines;
};

TEST(Evaluate, PerplexityMatchesTheFloat64Logits) {
  Evaluated e;
  const auto results = e.run(e.tiny.tokens);
  double sum = 0.0;
  for (std::size_t t = 0; t + 1 < e.tiny.tokens.size(); ++t) {
    double total = 0.0;
    for (const double x : e.tiny.expected_row(t)) total += std::exp(x);
    sum += std::log(total) - e.tiny.expected_row(t)[static_cast<std::size_t>(e.tiny.tokens[t + 1])];
  }
  const double expected = std::exp(sum / 39.0);
  ASSERT_EQ(results.size(), 3U);
  EXPECT_NEAR(results[0].perplexity / expected, 1.0, 1e-5);
  EXPECT_EQ(results[1].difference.value, 0.0);
  EXPECT_NEAR(results[1].mean_kl, 0.0, 1e-9);
  EXPECT_EQ(results[1].top1_agreement, 1.0);
  EXPECT_GT(results[2].mean_kl, 1e-4);
  EXPECT_LT(results[2].top1_agreement, 1.0);
  EXPECT_GT(results[0].prefill_rate, 0.0);
  EXPECT_GT(results[0].decode_rate, 0.0);
  EXPECT_EQ(results[0].samples.size(), 2U);
  EXPECT_EQ(results[0].samples, results[1].samples);
  EXPECT_EQ(e.lines.size(), 2U);
}

TEST(Evaluate, LaterWindowsScoreTheirLastTokens) {
  // The first window scores 39 tokens, the second 20; what the second adds must be what it gives on its own, scored
  // whole, without its first half.
  Evaluated e;
  e.prompts.clear();
  e.settings.formats.resize(1);
  std::vector<std::int32_t> text = e.tiny.tokens;
  text.insert(text.end(), e.tiny.tokens.rbegin(), e.tiny.tokens.rbegin() + 20);
  const double first = std::log(e.run(text).front().perplexity) * 39.0;
  e.settings.windows = 2;
  const double both = std::log(e.run(text).front().perplexity) * 59.0;
  e.settings.windows = 1;
  const auto second = std::span(text).subspan(20);
  const double whole = std::log(e.run(second).front().perplexity) * 39.0;
  e.settings.window = 20;
  e.settings.stride = 10;
  const double head = std::log(e.run(second).front().perplexity) * 19.0;
  EXPECT_NEAR(both - first, whole - head, 1e-3);
}

TEST(Report, TableAndJsonHoldEveryFormat) {
  Evaluated e;
  const auto results = e.run(e.tiny.tokens);
  const std::string rows = table(results);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), 5);
  EXPECT_THAT(rows, HasSubstr("| int4 "));
  EXPECT_THAT(rows, HasSubstr("reference"));

  const auto json =
      nlohmann::json::parse(to_json(results, e.prompts, Vocabulary(), e.settings, {"m", "t", "c", "f32", 1.0}));
  ASSERT_EQ(json.at("formats").size(), 3U);
  EXPECT_EQ(json.at("formats")[2].at("format"), "int4");
  EXPECT_EQ(json.at("formats")[2].at("bits_per_element"), 4.5);
  EXPECT_EQ(json.at("formats")[2].at("samples").size(), 2U);
  EXPECT_EQ(json.at("text_tokens"), 40);
  EXPECT_THAT(samples(results, e.prompts, Vocabulary()), HasSubstr("> a"));
}

}  // namespace
}  // namespace llama
