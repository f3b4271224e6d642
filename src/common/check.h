#pragma once
// Argument checks that throw Error. Names are passed in two parts, owner ("WriteKvArgs") and field ("cu_k"), so that
// nothing is formatted while everything is in order.

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace pagedkv::common {

/// Values as an Error shows them.
std::string text(std::int64_t value);
std::string text(double value);
std::string text(std::string_view value);
std::string text(const void* address);

template <class V>
concept Textual =
    std::integral<V> || std::floating_point<V> || std::convertible_to<V, std::string_view> || std::is_pointer_v<V>;

/// `value` through the overload of text() that keeps its meaning.
template <Textual V>
std::string value_text(const V& value) {
  if constexpr (std::integral<V>) {
    return text(static_cast<std::int64_t>(value));
  } else if constexpr (std::floating_point<V>) {
    return text(static_cast<double>(value));
  } else if constexpr (std::convertible_to<V, std::string_view>) {
    return text(std::string_view(value));
  } else {
    return text(static_cast<const void*>(value));
  }
}

/// Throws Error (invalid_argument) for `owner.field`.
[[noreturn]] void reject_text(std::string_view owner, std::string_view field, std::string value, std::string accepted);

/// Throws Error (invalid_argument) for `owner.field`. Pointers other than C strings are shown as addresses.
template <Textual V>
[[noreturn]] void reject(std::string_view owner, std::string_view field, const V& value, std::string accepted) {
  reject_text(owner, field, value_text(value), std::move(accepted));
}

/// Throws Error (invalid_argument) for `owner.field[index]`.
template <Textual V>
[[noreturn]] void reject_element(std::string_view owner, std::string_view field, std::int64_t index, const V& value,
                                 std::string accepted) {
  reject_text(owner, std::string(field) + "[" + text(index) + "]", value_text(value), std::move(accepted));
}

/// lowest <= value <= highest.
void check_range(std::string_view owner, std::string_view field, std::int64_t value, std::int64_t lowest,
                 std::int64_t highest);
void check_at_least(std::string_view owner, std::string_view field, std::int64_t value, std::int64_t lowest);
void check_multiple(std::string_view owner, std::string_view field, std::int64_t value, std::int64_t unit);

inline bool is_aligned(const void* p, std::uintptr_t alignment) {
  return reinterpret_cast<std::uintptr_t>(p) % alignment == 0;
}

/// Aligned, and for check_pointer not null.
void check_pointer(std::string_view owner, std::string_view field, const void* p, std::uintptr_t alignment);
void check_optional_pointer(std::string_view owner, std::string_view field, const void* p, std::uintptr_t alignment);

}  // namespace pagedkv::common
