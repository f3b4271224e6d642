#pragma once
// fmt::format whose code is compiled once, in format.cpp: fmt's headers with all of it take seconds in each file.

#include <fmt/core.h>

#include <string>

namespace pagedkv::common {

std::string format_args(fmt::string_view text, fmt::format_args args);

template <class... Args>
std::string formatted(fmt::format_string<Args...> text, Args&&... args) {
  return format_args(text, fmt::make_format_args(args...));
}

}  // namespace pagedkv::common
