#pragma once
// Reads a .npy file (format version 1, C order) into bytes.

#include <cstdint>
#include <string>
#include <vector>

namespace support {

struct NpyArray {
  std::string descr;  ///< element type as NumPy writes it: "<f2", "<u2", "|u1", "<f4"
  std::vector<std::int64_t> shape;
  std::vector<char> bytes;

  std::int64_t count() const;

  /// The elements as T.
  /// @throws std::runtime_error if T has another size
  template <class T>
  const T* as() const {
    check_element_size(sizeof(T));
    return reinterpret_cast<const T*>(bytes.data());
  }

 private:
  void check_element_size(std::size_t size) const;
};

/// @throws std::runtime_error naming the file and what is wrong with it
NpyArray read_npy(const std::string& path);

}  // namespace support
