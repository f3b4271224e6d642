#pragma once
// Reader of the safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes. The
// weights, the token files, the vocabulary and the expected logits all come as such files.

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mapped_file.h"

namespace llama {

enum class ElementType : std::uint8_t { u8, i32, f16, bf16, f32, f64 };

/// A tensor inside a file; a view.
struct Tensor {
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;   ///< outer to inner
  std::span<const std::byte> bytes;  ///< row major; not necessarily aligned

  std::int64_t elements() const;
};

/// The parsed header of a file. Every tensor's bytes lie inside the file and have the size that type and shape say.
class TensorTable {
 public:
  /// @param file  the whole file; must outlive the table
  /// @param name  what error messages call it
  /// @throws pagedkv::Error (bad_file) for anything that is not a well-formed safetensors file
  TensorTable(std::span<const std::byte> file, std::string name);

  /// @throws pagedkv::Error (bad_file) if there is no such tensor
  const Tensor& at(const std::string& tensor) const;
  bool contains(const std::string& tensor) const { return tensors_.contains(tensor); }
  /// The file's "__metadata__"; empty if it has none.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// Copies of a tensor that must have exactly this shape (floats: f16, bf16 or f32, converted to f32).
  /// @throws pagedkv::Error (bad_file) if it is missing or has another shape or type
  std::vector<float> floats(const std::string& tensor, const std::vector<std::int64_t>& shape) const;
  std::vector<double> doubles(const std::string& tensor, const std::vector<std::int64_t>& shape) const;
  std::vector<std::int32_t> ints(const std::string& tensor, const std::vector<std::int64_t>& shape) const;
  /// A vector of any length.
  std::vector<std::int32_t> ints(const std::string& tensor) const;
  std::string text(const std::string& tensor) const;

 private:
  const Tensor& checked(const std::string& tensor, const std::vector<std::int64_t>& shape) const;
  void require_type(const std::string& tensor, ElementType type) const;

  std::string name_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// A safetensors file on disk, mapped.
class TensorFile {
 public:
  explicit TensorFile(const std::string& path) : file_(path), table_(file_.bytes(), path) {}
  const TensorTable* operator->() const { return &table_; }
  const TensorTable& operator*() const { return table_; }

 private:
  MappedFile file_;
  TensorTable table_;
};

}  // namespace llama
