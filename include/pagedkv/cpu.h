#pragma once
// The CPU backend. Every function validates all its arguments, the contents of lengths and block tables included,
// before it writes. Each throws Error (invalid_argument) naming the argument, its value and what is accepted.

#include <cstddef>
#include <span>
#include <string_view>

#include "pagedkv/ops.h"

namespace pagedkv::cpu {

/// How an operation runs.
struct Exec {
  int threads = 0;  ///< at most this many; 0: as many as the machine has
};

void write_kv(const WriteKvArgs& args, Exec exec = {});
void flatten_kv(const FlattenKvArgs& args, Exec exec = {});

/// Bytes of workspace that decode() or prefill() needs for these arguments and threads. Uses batch, cu_q, cu_k, heads
/// and dimensions, q_bias and rotate_q.
std::size_t decode_workspace_bytes(const DecodeArgs& args, Exec exec = {});
std::size_t prefill_workspace_bytes(const PrefillArgs& args, Exec exec = {});

/// q_len 1 .. 16 of every sequence. A token's result has the same bits as prefill() gives for it, whatever the batch,
/// the chunking, the block length, the block table, the number of threads or whether fuse_write put the new tokens into
/// the cache.
void decode(const DecodeArgs& args, Workspace workspace, Exec exec = {});

/// Any q_len.
void prefill(const PrefillArgs& args, Workspace workspace, Exec exec = {});

void merge_partials(const MergePartialsArgs& args, Exec exec = {});
void apply_rope(const ApplyRopeArgs& args, Exec exec = {});

/// Names of the SIMD targets compiled in that this machine can run, best first; "scalar" is always the last.
std::span<const std::string_view> targets();

/// The target in use: the best one, or the one named by the environment variable PAGEDKV_CPU_TARGET, or by
/// set_target().
std::string_view target();

/// Uses a target from targets() from now on, process-wide. Cache bytes do not depend on it.
/// @throws Error if the machine cannot run it.
void set_target(std::string_view name);

}  // namespace pagedkv::cpu
