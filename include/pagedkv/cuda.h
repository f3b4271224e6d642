#pragma once
// The CUDA backend. Device pointers everywhere, no CUDA header: a Stream is a cudaStream_t.
//
// No function synchronises, allocates or copies: lengths and block tables are read on the device only, so a launch can
// be captured in a graph and replayed after their contents change, within the stated maxima. Arguments that can be
// checked without reading device memory are checked before anything is launched. Every function throws Error
// (invalid_argument), (unsupported) when no kernel was built for the combination or device, or (cuda).

#include <cstddef>
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

/// Bytes of workspace that decode() needs: 0 while no sequence can be split. Uses layout, max_total_q, max_k_len and
/// q_heads; the contents need no preparation, though compute-sanitizer's initcheck reports counters there that nothing
/// has written before their first use. Calls on one stream may share the memory, whatever their shapes. Calls that may
/// run at the same time need workspaces of their own.
std::size_t decode_workspace_bytes(const DecodeArgs& args);

/// Attention of 1 .. 16 new tokens per sequence over the paged cache, which already holds them or, with fuse_write,
/// makes and stores them itself, with the bytes of write_kv(). head_dim 64, 96, 128, 192 or 256, block_len 16, 32, 64
/// or 128, T f16 or bf16, any formats, any number of q heads per kv head.
///
/// The bits of a row's o and lse depend on its sequence alone: q, length, cache contents and formats, options; with
/// int8 or int4 at head_dim 64 on layout.kv_heads too, where the sequence has more than 65536 tokens. Not on whether
/// the call writes the new tokens or write_kv() did, on the batch, the block table, block_len, maxima, the device or
/// whether a graph replays it.
void decode(const DecodeArgs& args, Workspace workspace, Validation validation, Stream stream);

inline void decode(const DecodeArgs& args, Workspace workspace, Stream stream) {
  decode(args, workspace, Validation::arguments, stream);
}

/// As pagedkv::cpu::merge_partials(); T f16, bf16 or f32.
void merge_partials(const MergePartialsArgs& args, Stream stream);

/// Keys and values of new tokens into the cache. Writes the bytes that pagedkv::cpu::write_kv writes.
/// head_dim 64, 96, 128, 192, 256 or 576; T f16 or bf16.
void write_kv(const WriteKvArgs& args, Validation validation, Stream stream);

/// The cache back into rows of T, with the bytes of pagedkv::cpu::flatten_kv. Same head_dim and T.
void flatten_kv(const FlattenKvArgs& args, Validation validation, Stream stream);

inline void write_kv(const WriteKvArgs& args, Stream stream) {
  write_kv(args, Validation::arguments, stream);
}

inline void flatten_kv(const FlattenKvArgs& args, Stream stream) {
  flatten_kv(args, Validation::arguments, stream);
}

}  // namespace pagedkv::cuda
