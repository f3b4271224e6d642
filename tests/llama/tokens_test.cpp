#include "tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "file_bytes.h"
#include "pagedkv/error.h"

namespace llama {
namespace {

using pagedkv::Error;
using test::bytes_of;
using test::data_of;
using test::file_of;
using testing::ElementsAre;

std::string ints(const std::string& name, const std::vector<std::int32_t>& values) {
  const std::string n = std::to_string(values.size());
  const std::string end = std::to_string(values.size() * 4);
  return file_of("{\"" + name + R"(": {"dtype": "I32", "shape": [)" + n + R"(], "data_offsets": [0, )" + end +
                     R"(]}, "__metadata__": {"prompt.0": "hello"}})",
                 data_of(values));
}

std::string vocabulary(const std::string& bytes, const std::vector<std::int32_t>& offsets) {
  const std::string b = std::to_string(bytes.size());
  const std::string n = std::to_string(offsets.size());
  const std::string end = std::to_string(bytes.size() + offsets.size() * 4);
  return file_of(R"({"bytes": {"dtype": "U8", "shape": [)" + b + R"(], "data_offsets": [0, )" + b +
                     R"(]}, "offsets": {"dtype": "I32", "shape": [)" + n + R"(], "data_offsets": [)" + b + ", " + end +
                     "]}}",
                 bytes + data_of(offsets));
}

TEST(Tokens, ReadsTexts) {
  const std::string file = ints("tokens", {0, 4, 2});
  const TensorTable table(bytes_of(file), "f");
  EXPECT_THAT(read_tokens(table, 5), ElementsAre(0, 4, 2));
  EXPECT_THROW(read_tokens(table, 4), Error);
}

TEST(Tokens, NamesTheBadToken) {
  try {
    check_tokens(std::vector<std::int32_t>{0, -1}, 5, "tokens");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.argument(), "tokens[1]");
    EXPECT_EQ(error.value(), "-1");
    EXPECT_EQ(error.accepted(), "a token from 0 to 4");
  }
}

TEST(Tokens, ReadsPrompts) {
  const std::string file = ints("prompt.0", {3, 1});
  const auto prompts = read_prompts(TensorTable(bytes_of(file), "f"), 5);
  ASSERT_EQ(prompts.size(), 1U);
  EXPECT_EQ(prompts[0].text, "hello");
  EXPECT_THAT(prompts[0].tokens, ElementsAre(3, 1));
  const std::string empty = ints("prompt.0", {});
  EXPECT_THROW(read_prompts(TensorTable(bytes_of(empty), "f"), 5), Error);
  const std::string large = ints("prompt.0", {5});
  EXPECT_THROW(read_prompts(TensorTable(bytes_of(large), "f"), 5), Error);
}

TEST(Vocabulary, JoinsTheBytesOfTokens) {
  const std::string file = vocabulary("ab\xc3\xa9 ", {0, 1, 3, 3, 5});
  const Vocabulary v(TensorTable(bytes_of(file), "f"));
  EXPECT_EQ(v.size(), 4);
  EXPECT_EQ(v.text(std::vector<std::int32_t>{1, 3, 0, 2}), "b\xc3\xa9 a");
  EXPECT_EQ(v.text(std::vector<std::int32_t>{-1, 4, 0}), "a");
  EXPECT_EQ(Vocabulary().size(), 0);
}

TEST(Vocabulary, RefusesBadOffsets) {
  for (const std::vector<std::int32_t>& offsets :
       {std::vector<std::int32_t>{}, {1, 3}, {0, 2}, {0, 4}, {0, 2, 1, 3}, {0, -1, 3}, {0, 5, 3}, {0, -3}}) {
    const std::string file = vocabulary("abc", offsets);
    EXPECT_THROW(Vocabulary(TensorTable(bytes_of(file), "f")), Error) << testing::PrintToString(offsets);
  }
}

}  // namespace
}  // namespace llama
