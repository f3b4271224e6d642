#include "common/check.h"

#include "common/format.h"
#include "pagedkv/error.h"

namespace pagedkv::common {

std::string text(std::int64_t value) {
  return formatted("{}", value);
}
std::string text(double value) {
  return formatted("{}", value);
}
std::string text(std::string_view value) {
  return std::string(value);
}
std::string text(const void* address) {
  return address == nullptr ? "null" : formatted("{}", address);
}

void reject_text(std::string_view owner, std::string_view field, std::string value, std::string accepted) {
  throw Error(ErrorCode::invalid_argument, formatted("{}.{}", owner, field), std::move(value), std::move(accepted));
}

void check_range(std::string_view owner, std::string_view field, std::int64_t value, std::int64_t lowest,
                 std::int64_t highest) {
  if (value < lowest || value > highest) reject(owner, field, value, formatted("{} .. {}", lowest, highest));
}

void check_at_least(std::string_view owner, std::string_view field, std::int64_t value, std::int64_t lowest) {
  if (value < lowest) reject(owner, field, value, formatted("at least {}", lowest));
}

void check_multiple(std::string_view owner, std::string_view field, std::int64_t value, std::int64_t unit) {
  if (value % unit != 0) reject(owner, field, value, formatted("a multiple of {}", unit));
}

void check_pointer(std::string_view owner, std::string_view field, const void* p, std::uintptr_t alignment) {
  if (p == nullptr || !is_aligned(p, alignment)) {
    reject(owner, field, p, formatted("an address aligned to {} bytes", alignment));
  }
}

void check_optional_pointer(std::string_view owner, std::string_view field, const void* p, std::uintptr_t alignment) {
  if (!is_aligned(p, alignment)) {
    reject(owner, field, p, formatted("null or an address aligned to {} bytes", alignment));
  }
}

}  // namespace pagedkv::common
