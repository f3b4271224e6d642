#include "tokens.h"

#include "pagedkv/error.h"

namespace llama {

using pagedkv::Error;
using pagedkv::ErrorCode;

void check_tokens(std::span<const std::int32_t> tokens, std::int32_t vocab_size, const std::string& name) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      throw Error(ErrorCode::bad_file, name + "[" + std::to_string(i) + "]", std::to_string(tokens[i]),
                  "a token from 0 to " + std::to_string(vocab_size - 1));
    }
  }
}

std::vector<std::int32_t> read_tokens(const TensorTable& file, std::int32_t vocab_size) {
  auto tokens = file.ints("tokens");
  check_tokens(tokens, vocab_size, "tokens");
  return tokens;
}

std::vector<Prompt> read_prompts(const TensorTable& file, std::int32_t vocab_size) {
  std::vector<Prompt> prompts;
  for (int i = 0;; ++i) {
    const std::string key = "prompt." + std::to_string(i);
    if (!file.contains(key)) return prompts;
    Prompt prompt;
    prompt.tokens = file.ints(key);
    if (prompt.tokens.empty()) throw Error(ErrorCode::bad_file, key, "no tokens", "at least one");
    check_tokens(prompt.tokens, vocab_size, key);
    const auto text = file.metadata().find(key);
    if (text != file.metadata().end()) prompt.text = text->second;
    prompts.push_back(std::move(prompt));
  }
}

Vocabulary::Vocabulary(const TensorTable& file) : bytes_(file.text("bytes")), offsets_(file.ints("offsets")) {
  if (offsets_.empty() || offsets_.front() != 0 || static_cast<std::size_t>(offsets_.back()) != bytes_.size()) {
    throw Error(ErrorCode::bad_file, "offsets", "", "from 0 to the " + std::to_string(bytes_.size()) + " bytes");
  }
  for (std::size_t i = 1; i < offsets_.size(); ++i) {
    if (offsets_[i] < offsets_[i - 1]) {
      throw Error(ErrorCode::bad_file, "offsets[" + std::to_string(i) + "]", std::to_string(offsets_[i]),
                  "at least its predecessor " + std::to_string(offsets_[i - 1]));
    }
  }
}

std::string Vocabulary::text(std::span<const std::int32_t> tokens) const {
  std::string out;
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= size()) continue;
    const auto begin = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(token)]);
    const auto end = static_cast<std::size_t>(offsets_[static_cast<std::size_t>(token) + 1]);
    out.append(bytes_, begin, end - begin);
  }
  return out;
}

}  // namespace llama
