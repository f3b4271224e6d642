#pragma once
// The CUDA backend. Device pointers everywhere, no CUDA header: a Stream is a cudaStream_t.
//
// No function synchronises, allocates or copies: lengths and block tables are read on the device only, so a launch can
// be captured in a graph and replayed after their contents change, within the stated maxima. Arguments that can be
// checked without reading device memory are checked before anything is launched. Every function throws Error
// (invalid_argument), (unsupported) when no kernel was built for the combination or device, or (cuda).

#include <cstdint>

#include "pagedkv/ops.h"

struct CUstream_st;

namespace pagedkv::cuda {

/// A cudaStream_t.
using Stream = CUstream_st*;

/// How much a call checks.
enum class Validation : std::uint8_t {
  /// What needs no device memory: shapes, alignments, null pointers, formats.
  arguments,
  /// Also the contents of lengths, block tables and per-sequence RoPE data, which are copied to the host for it: waits
  /// for the stream, cannot be captured. Throws before the launch, naming sequence, index and value.
  full,
};

}  // namespace pagedkv::cuda
