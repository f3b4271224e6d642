// Any bytes as a model's config.json.

#include <cstddef>
#include <cstdint>

#include "config.h"
#include "pagedkv/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto config = llama::parse_config({reinterpret_cast<const char*>(data), size}, "input");
    make_rope_table(config.rope, config.head_dim);  // whatever is accepted must be usable
  } catch (const pagedkv::Error&) {                 // anything else ends the run
  }
  return 0;
}
