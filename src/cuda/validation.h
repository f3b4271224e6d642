#pragma once
// Validation::full: arrays that lie on the device, checked on the host.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pagedkv/cuda.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda {

/// Host copies of device arrays, kept while it lives.
class HostCopies {
 public:
  /// @throws Error (invalid_state) if the stream is being captured
  explicit HostCopies(Stream stream);

  /// Makes `array`, a device address or null, point to a host copy of its first `count` elements. `name` names it in
  /// the Error (invalid_argument) that a failing copy throws.
  template <class V>
  void fetch(const V*& array, std::int64_t count, const char* name) {
    if (array != nullptr) array = static_cast<const V*>(copy(array, count, sizeof(V), name));
  }

  /// The same for a block table of a batch.
  void fetch(BlockTable& table, std::int32_t batch, const char* owner);

  /// The same for what a RoPE table reads per sequence.
  void fetch(core::RopeTable& rope, std::int32_t batch);

 private:
  const void* copy(const void* array, std::int64_t count, std::size_t element, const char* name);

  Stream stream_;
  std::vector<std::unique_ptr<std::byte[]>> arrays_;
};

/// Checks everything that the arrays of `args` hold. check_args() must have passed.
/// @throws Error (invalid_argument) naming sequence, index and value
void validate_contents(const WriteKvArgs& args, Stream stream);
void validate_contents(const FlattenKvArgs& args, Stream stream);
void validate_contents(const AttentionArgs& args, Stream stream);

}  // namespace pagedkv::cuda
