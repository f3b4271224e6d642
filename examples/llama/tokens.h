#pragma once
// Tokens in and text out: the files that prepare/tokens.py writes.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "safetensors.h"

namespace llama {

/// @throws pagedkv::Error (bad_file) naming the first token outside 0 .. vocab_size-1
void check_tokens(std::span<const std::int32_t> tokens, std::int32_t vocab_size, const std::string& name);

/// Tensor "tokens" of a token file.
std::vector<std::int32_t> read_tokens(const TensorTable& file, std::int32_t vocab_size);

struct Prompt {
  std::string text;                  ///< as the user wrote it, without the chat template
  std::vector<std::int32_t> tokens;  ///< at least one
};

/// Tensors "prompt.0", "prompt.1", ... of a prompt file.
std::vector<Prompt> read_prompts(const TensorTable& file, std::int32_t vocab_size);

/// The bytes of every token.
class Vocabulary {
 public:
  /// Tensors "bytes" (u8) and "offsets" (int32, one more than there are tokens): token i is bytes[offsets[i] :
  /// offsets[i+1]].
  explicit Vocabulary(const TensorTable& file);
  /// No tokens.
  Vocabulary() = default;

  std::int32_t size() const { return static_cast<std::int32_t>(offsets_.size()) - 1; }
  /// Tokens that the vocabulary does not have (models pad theirs) are left out.
  std::string text(std::span<const std::int32_t> tokens) const;

 private:
  std::string bytes_;
  std::vector<std::int32_t> offsets_{0};
};

}  // namespace llama
