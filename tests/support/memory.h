#pragma once
// Host memory that shows where it was written.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "oracle/number.h"

namespace support {

/// Memory aligned to 64 bytes and filled with a pattern; knows which bytes still hold it.
class Poisoned {
 public:
  explicit Poisoned(std::size_t bytes) : size_(bytes), data_(new (kAlignment) char[bytes + 1]) {
    for (std::size_t i = 0; i < bytes; ++i) data_[i] = pattern(i);
  }
  char* data() { return data_.get(); }
  const char* data() const { return data_.get(); }
  std::size_t size() const { return size_; }

  /// Empty if every byte outside of the claimed ones holds the pattern, else which one does not.
  /// @param claimed  [size()] bytes that may have been written
  std::string why_touched(const std::vector<bool>& claimed) const {
    for (std::size_t i = 0; i < size_; ++i) {
      if (!claimed[i] && data_[i] != pattern(i)) return "byte " + std::to_string(i) + " was written";
    }
    return {};
  }
  std::string why_touched() const { return why_touched(std::vector<bool>(size_)); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(char* p) const { ::operator delete[](p, kAlignment); }
  };
  static char pattern(std::size_t i) { return static_cast<char>(0xA5u ^ (i * 37u >> 3)); }

  std::size_t size_;
  std::unique_ptr<char[], Free> data_;
};

/// Poisoned memory of elements of one type, read and written as double.
class Tensor {
 public:
  Tensor(oracle::Type type, std::int64_t elements)
      : type_(type), memory_(static_cast<std::size_t>(elements * oracle::bytes_of(type))) {}
  Tensor(oracle::Type type, const std::vector<double>& values)
      : Tensor(type, static_cast<std::int64_t>(values.size())) {
    for (std::size_t i = 0; i < values.size(); ++i) set(static_cast<std::int64_t>(i), values[i]);
  }

  oracle::Type type() const { return type_; }
  char* at(std::int64_t i) { return memory_.data() + i * oracle::bytes_of(type_); }
  const char* at(std::int64_t i) const { return memory_.data() + i * oracle::bytes_of(type_); }
  double get(std::int64_t i) const { return oracle::load(type_, at(i)); }
  void set(std::int64_t i, double x) { oracle::store(type_, at(i), x); }
  Poisoned& memory() { return memory_; }
  const Poisoned& memory() const { return memory_; }

 private:
  oracle::Type type_;
  Poisoned memory_;
};

}  // namespace support
