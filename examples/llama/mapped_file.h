#pragma once
// A read-only file mapped into memory.

#include <cstddef>
#include <span>
#include <string>
#include <utility>

namespace llama {

class MappedFile {
 public:
  /// @throws pagedkv::Error (bad_file) if the file cannot be opened or mapped
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace llama
