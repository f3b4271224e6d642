// Here alone fmt is compiled, so that the library needs none to link with.
#define FMT_HEADER_ONLY 1
#include "common/format.h"

namespace pagedkv::common {

std::string format_args(fmt::string_view text, fmt::format_args args) {
  return fmt::vformat(text, args);
}

}  // namespace pagedkv::common
