#pragma once
// Safetensors files built in memory.

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace llama::test {

/// Header length, header and data, as they stand in a file.
inline std::string file_of(const std::string& header, const std::string& data) {
  std::string out;
  for (std::size_t i = 0; i < 8; ++i) out += static_cast<char>((header.size() >> (8 * i)) & 0xffU);
  return out + header + data;
}

inline std::span<const std::byte> bytes_of(const std::string& s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

template <class T>
std::string data_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

}  // namespace llama::test
