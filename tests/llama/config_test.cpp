#include "config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "pagedkv/error.h"

namespace llama {
namespace {

using pagedkv::Error;
using pagedkv::RopePairs;
using pagedkv::RopeType;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kGood = R"({
  "model_type": "llama", "vocab_size": 1000, "hidden_size": 512, "intermediate_size": 700, "num_hidden_layers": 3,
  "num_attention_heads": 8, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 500000.0})";

/// kGood with one member set to another value, or added.
std::string with(const std::string& key, const std::string& value) {
  auto document = nlohmann::json::parse(kGood);
  document[key] = nlohmann::json::parse(value);
  return document.dump();
}

std::string complaint(const std::string& text) {
  try {
    parse_config(text, "c");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), pagedkv::ErrorCode::bad_file);
    return error.what();
  }
  return "accepted";
}

TEST(Config, ReadsWhatAModelNeeds) {
  const Config c = parse_config(kGood, "c");
  EXPECT_EQ(c.vocab_size, 1000);
  EXPECT_EQ(c.hidden_size, 512);
  EXPECT_EQ(c.intermediate_size, 700);
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.q_heads, 8);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.q_size(), 512);
  EXPECT_EQ(c.kv_size(), 128);
  EXPECT_FLOAT_EQ(c.rms_norm_eps, 1e-6F);
  EXPECT_FALSE(c.tied_embeddings);
  EXPECT_TRUE(c.eos_tokens.empty());
  EXPECT_EQ(c.rope.type, RopeType::standard);
  EXPECT_EQ(c.rope.pairs, RopePairs::half_split);
  EXPECT_EQ(c.rope.dim, 64);
  EXPECT_EQ(c.rope.base, 500000.0);
}

TEST(Config, ReadsOptionalMembers) {
  EXPECT_EQ(parse_config(with("head_dim", "128"), "c").head_dim, 128);
  EXPECT_TRUE(parse_config(with("tie_word_embeddings", "true"), "c").tied_embeddings);
  EXPECT_THAT(parse_config(with("eos_token_id", "5"), "c").eos_tokens, ElementsAre(5));
  EXPECT_THAT(parse_config(with("eos_token_id", "[5, 7]"), "c").eos_tokens, ElementsAre(5, 7));
  EXPECT_EQ(parse_config(with("rope_style", "\"interleaved\""), "c").rope.pairs, RopePairs::interleaved);
  EXPECT_EQ(parse_config(with("rope_scaling", "null"), "c").rope.type, RopeType::standard);
}

TEST(Config, ReadsRopeScaling) {
  const auto rope = [](const std::string& scaling) { return parse_config(with("rope_scaling", scaling), "c").rope; };
  const auto linear = rope(R"({"type": "linear", "factor": 4})");
  EXPECT_EQ(linear.type, RopeType::linear);
  EXPECT_EQ(linear.factor, 4.0);
  const auto llama3 = rope(R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                               "original_max_position_embeddings": 8192})");
  EXPECT_EQ(llama3.type, RopeType::llama3);
  EXPECT_EQ(llama3.original_max_position, 8192);
  EXPECT_EQ(llama3.high_freq_factor, 4.0);
  const auto yarn = rope(R"({"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 4096})");
  EXPECT_EQ(yarn.type, RopeType::yarn);
  EXPECT_EQ(yarn.beta_fast, 32.0);
}

TEST(Config, NamesTheMemberThatIsWrong) {
  const std::vector<std::array<std::string, 3>> cases{
      {"model_type", "\"gpt2\"", "accepted: llama"},
      {"model_type", "3", "a string"},
      {"hidden_act", "\"gelu\"", "silu"},
      {"attention_bias", "true", "false"},
      {"mlp_bias", "1", "true or false"},
      {"vocab_size", "0", "from 1 to"},
      {"vocab_size", "1e3", "an integer"},
      {"vocab_size", "\"1000\"", "an integer"},
      {"vocab_size", "99999999999999999999999", "an integer"},
      {"vocab_size", "18446744073709551615", "from 1 to"},
      {"hidden_size", "-512", "from 1 to"},
      {"num_hidden_layers", "null", "an integer"},
      {"num_key_value_heads", "3", "a divisor"},
      {"num_key_value_heads", "16", "from 1 to 8"},
      {"head_dim", "40", "multiple of 16"},
      {"head_dim", "272", "from 16 to 256"},
      {"hidden_size", "8", "head_dim"},
      {"rms_norm_eps", "-1", "from 0.0 to 1.0"},
      {"rms_norm_eps", "\"x\"", "a number"},
      {"rope_theta", "0", "from 1.0 to"},
      {"rope_style", "\"spiral\"", "half_split or interleaved"},
      {"eos_token_id", "1000", "from 0 to 999"},
      {"eos_token_id", "[1, -1]", "eos_token_id = -1"},
      {"rope_scaling", "7", "a JSON object"},
      {"rope_scaling", R"({"rope_type": "dynamic", "factor": 2, "original_max_position_embeddings": 1})", "rope_type"},
      {"rope_scaling", R"({"rope_type": "llama3", "factor": 2})", "original_max_position_embeddings = missing"},
      {"rope_scaling", R"({"rope_type": "linear", "factor": 0.5})", "rope_scaling.factor"},
  };
  for (const auto& [key, value, expected] : cases) {
    EXPECT_THAT(complaint(with(key, value)), HasSubstr(expected)) << key << " = " << value;
  }
  for (const char* text : {"", "{", "[]", "3", "{\"vocab_size\": }"}) EXPECT_THAT(complaint(text), HasSubstr("JSON"));
  EXPECT_THAT(complaint("{}"), HasSubstr("vocab_size = missing"));
}

TEST(Config, FuzzCorpusGivesErrorsOnly) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PAGEDKV_FUZZ_CORPUS "/config")) {
    ++files;
    try {
      read_config(entry.path().string());
    } catch (const Error&) {
    }
  }
  EXPECT_GT(files, 0);
}

}  // namespace
}  // namespace llama
