#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "check.h"
#include "metrics.h"
#include "pagedkv/error.h"
#include "tiny_model.h"

namespace llama {
namespace {

using pagedkv::DType;
using pagedkv::Error;
using test::TinyModel;

class TinyLogits : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(RopeStyles, TinyLogits, testing::Values("interleaved", "half_split"),
                         [](const auto& test_case) { return std::string(test_case.param); });

TEST_P(TinyLogits, MatchTheFloat64ForwardPassHoweverThePromptIsCut) {
  TinyModel tiny(GetParam());
  for (const std::int32_t chunk : {40, 17, 16, 7, 1}) {
    for (const std::int32_t block_len : {64, 16, 1}) {
      const CheckResult result = check_logits(tiny.model, *tiny.expected, chunk, block_len, 2);
      EXPECT_EQ(result.compared, 40 * 96);
      EXPECT_LE(result.difference, result.allowed) << "chunk " << chunk << ", block_len " << block_len;
    }
  }
}

TEST_P(TinyLogits, MatchInARaggedBatch) {
  TinyModel tiny(GetParam());
  const double allowed = kCheckFactor * tiny.expected->doubles("f32_error", {1}).front();
  PagedCache cache(tiny.config, {DType::f32, {}}, 16, 16, 2);
  const std::span<const std::int32_t> prompt = tiny.tokens;
  std::vector<pagedkv::SequenceBlocks> sequences;
  std::vector<NewTokens> batch;
  const std::array<std::size_t, 3> lengths{11, 40, 1};
  for (std::size_t i = 0; i < lengths.size(); ++i) sequences.push_back(cache.new_sequence());
  for (std::size_t i = 0; i < lengths.size(); ++i) batch.push_back({&sequences[i], prompt.first(lengths[i])});

  const auto width = static_cast<std::size_t>(tiny.config.hidden_size);
  std::vector<float> hidden(52 * width);
  tiny.model.forward(cache, batch, hidden);
  std::vector<float> logits(52 * 96);
  tiny.model.logits(hidden.data(), 52, logits.data());
  std::size_t row = 0;
  for (const std::size_t length : lengths) {
    for (std::size_t t = 0; t < length; ++t, ++row) {
      for (std::size_t i = 0; i < 96; ++i) {
        ASSERT_NEAR(double{logits[row * 96 + i]}, tiny.expected_row(t)[i], allowed) << "row " << row << ", token " << i;
      }
    }
  }
}

TEST(TinyLogits, TheCheckSeesAWrongPairStyle) {
  const TinyModel tiny("interleaved");
  Config wrong = tiny.config;
  wrong.rope.pairs = pagedkv::RopePairs::half_split;
  Model model(wrong, *tiny.weights, MatmulType::f32);
  const CheckResult result = check_logits(model, *tiny.expected, 40, 64, 2);
  EXPECT_FALSE(result.passed());
  EXPECT_GT(result.difference, 1000 * result.allowed);
}

/// Mean KL of the next-token distribution from the float64 logits.
double mean_kl(TinyModel& tiny, const char* format) {
  PagedCache cache(tiny.config, parse_format(format, DType::f16), 16, 8, 2);
  auto sequence = cache.new_sequence();
  const auto width = static_cast<std::size_t>(tiny.config.hidden_size);
  std::vector<float> hidden(tiny.tokens.size() * width);
  prefill(tiny.model, cache, sequence, tiny.tokens, 16, hidden);
  std::vector<float> logits(96), p(96);
  double sum = 0.0;
  for (std::size_t t = 0; t < tiny.tokens.size(); ++t) {
    tiny.model.logits(hidden.data() + t * width, 1, logits.data());
    const auto row = tiny.expected_row(t);
    const std::vector<float> expected(row.begin(), row.end());
    probabilities(expected, softmax(expected), p);
    sum += kl_divergence(p, expected, softmax(expected), logits, softmax(logits));
  }
  return sum / static_cast<double>(tiny.tokens.size());
}

TEST(TinyLogits, CoarserFormatsCostMore) {
  TinyModel tiny("half_split");
  const double f32 = mean_kl(tiny, "f32");
  const double f16 = mean_kl(tiny, "f16");
  const double bf16 = mean_kl(tiny, "bf16");
  const double int8 = mean_kl(tiny, "int8");
  const double mixed = mean_kl(tiny, "int8/int4");
  const double int4 = mean_kl(tiny, "int4");
  EXPECT_LT(std::abs(f32), 1e-7);
  EXPECT_LT(f32, f16);
  EXPECT_LT(f16, bf16);
  EXPECT_LT(f16, int8);
  EXPECT_LT(int8, mixed);
  EXPECT_LT(mixed, int4);
  EXPECT_LT(int4, 0.5);
}

TEST(DemoModel, MatchesTheFloat64ForwardPass) {
  const std::string folder = PAGEDKV_DEMO_MODEL;
  if (!std::filesystem::exists(folder + "/config.json")) {
    GTEST_SKIP() << "the model is not here; ./dev demo fetches it, and makes this very check itself";
  }
  const Config config = read_config(folder + "/config.json");
  Model model(config, *TensorFile(folder + "/model.safetensors"), MatmulType::f32);
  const CheckResult result = check_logits(model, *TensorFile(PAGEDKV_DEMO_LOGITS), 64, 64, 2);
  EXPECT_EQ(result.compared, 8 * 256);
  EXPECT_LE(result.difference, result.allowed);
}

TEST(Model, RefusesWeightsThatDoNotFitTheConfig) {
  const TinyModel tiny("interleaved");
  Config config = tiny.config;
  config.layers = 3;
  EXPECT_THROW(Model(config, *tiny.weights, MatmulType::f32), Error);
  config = tiny.config;
  config.intermediate_size = 64;
  EXPECT_THROW(Model(config, *tiny.weights, MatmulType::f32), Error);
  config = tiny.config;
  config.tied_embeddings = false;
  EXPECT_THROW(Model(config, *tiny.weights, MatmulType::f32), Error);
}

TEST(Model, RefusesTokensOutsideTheVocabulary) {
  TinyModel tiny("interleaved");
  PagedCache cache(tiny.config, {DType::f32, {}}, 16, 4, 2);
  auto sequence = cache.new_sequence();
  std::vector<float> hidden(32);
  const std::int32_t token = 96;
  const NewTokens batch{&sequence, {&token, 1}};
  EXPECT_THROW(tiny.model.forward(cache, {&batch, 1}, hidden), Error);
  EXPECT_EQ(sequence.tokens(), 0);
}

TEST(Model, SaysWhenTheCacheIsFull) {
  TinyModel tiny("interleaved");
  PagedCache cache(tiny.config, {DType::f32, {}}, 16, 2, 2);
  auto sequence = cache.new_sequence();
  std::vector<float> hidden(40 * 32);
  const NewTokens batch{&sequence, tiny.tokens};
  try {
    tiny.model.forward(cache, {&batch, 1}, hidden);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), pagedkv::ErrorCode::invalid_state);
    EXPECT_EQ(error.argument(), "cache");
  }
}

TEST(CacheFormat, NamesReadAndPrintedAgree) {
  const auto read = [](const char* text) { return label(parse_format(text, DType::f16)); };
  EXPECT_EQ(read("f32"), "f32 same");
  EXPECT_EQ(read("bf16"), "bf16 same");
  EXPECT_EQ(read("int8"), "int8");
  EXPECT_EQ(read("int8/int8"), "int8");
  EXPECT_EQ(read("int8/int4"), "K int8 + V int4");
  EXPECT_EQ(read("bf16/int4"), "K bf16 + V int4");
  EXPECT_EQ(parse_format("int4", DType::bf16).dtype, DType::bf16);
  EXPECT_EQ(parse_format("int4/f32", DType::bf16).dtype, DType::f32);
  for (const char* text : {"", "int2", "int8/", "/int8", "f16/bf16", "int8/int4/int4"}) {
    EXPECT_THROW(parse_format(text, DType::f16), Error) << text;
  }
}

TEST(CacheFormat, SizesIncludeTheParameters) {
  const TinyModel tiny("interleaved");
  const auto bits = [&](const char* format) {
    return PagedCache(tiny.config, parse_format(format, DType::f16), 16, 1, 1).bits_per_element();
  };
  EXPECT_EQ(bits("f32"), 32.0);
  EXPECT_EQ(bits("f16"), 16.0);
  EXPECT_EQ(bits("int8"), 8.5);  // 32 bits of scale and zero for 64 elements
  EXPECT_EQ(bits("int4"), 4.5);
  EXPECT_EQ(bits("int8/int4"), 6.5);
}

}  // namespace
}  // namespace llama
