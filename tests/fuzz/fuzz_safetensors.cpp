// Any bytes as a safetensors file, and as each of the files that are stored in that format.

#include <cstddef>
#include <cstdint>

#include "pagedkv/error.h"
#include "tokens.h"

namespace {

constexpr std::int32_t kVocabulary = 1000;

template <class Read>
void expect_value_or_error(Read read) {
  try {
    read();
  } catch (const pagedkv::Error&) {  // anything else ends the run
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  expect_value_or_error([&] {
    const llama::TensorTable table(bytes, "input");
    expect_value_or_error([&] { llama::read_tokens(table, kVocabulary); });
    expect_value_or_error([&] { llama::read_prompts(table, kVocabulary); });
    expect_value_or_error([&] { llama::Vocabulary(table).text(table.ints("tokens")); });
    for (const char* name : {"a", "tokens", "bytes"}) {
      expect_value_or_error([&] { table.floats(name, table.at(name).shape); });
      expect_value_or_error([&] { table.doubles(name, table.at(name).shape); });
    }
  });
  return 0;
}
