#pragma once
// The demo's results for people and for programs.

#include <span>
#include <string>

#include "evaluate.h"

namespace llama {

/// A Markdown table, one row per format.
std::string table(std::span<const FormatResult> results);

/// Every prompt with the continuation that each format gave.
std::string samples(std::span<const FormatResult> results, std::span<const Prompt> prompts,
                    const Vocabulary& vocabulary);

/// What the results were measured on and with.
struct Setup {
  std::string model;
  std::string text;
  std::string cpu_target;  ///< pagedkv's
  std::string matmul;
  double seconds = 0.0;
};

/// The same as JSON. Text that is no valid UTF-8 (a token may end inside a character) has U+FFFD in its place.
std::string to_json(std::span<const FormatResult> results, std::span<const Prompt> prompts,
                    const Vocabulary& vocabulary, const Settings& settings, const Setup& setup);

}  // namespace llama
