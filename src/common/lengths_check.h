#pragma once
// Checks of what the arrays of an argument struct hold: lengths, block tables, per-sequence RoPE data. The arrays must
// be readable by the host. The CPU backend passes its arguments as they are; a backend whose arrays lie elsewhere
// passes a copy of the struct in which lengths, table entries and per-sequence arrays point to host copies (data
// pointers, block addresses and the slab are compared, never dereferenced).
//
// check_args() must have passed before. Only table entries that the operation dereferences are looked at.

#include <cstdint>
#include <string_view>

#include "pagedkv/ops.h"

namespace pagedkv::common {

void check_lengths(const WriteKvArgs& args);
void check_lengths(const FlattenKvArgs& args);
void check_lengths(const AttentionArgs& args);
void check_lengths(const ApplyRopeArgs& args);

/// `cu` has batch + 1 values, the first at least 0 and none below the one before it.
void check_cumulative(std::string_view owner, std::string_view field, const std::int32_t* cu, std::int32_t batch);

/// Half-open range of logical blocks of a sequence.
struct BlockRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// Logical blocks of sequence b that write_kv writes into, and that flatten_kv reads.
BlockRange written_blocks(const WriteKvArgs& args, std::int32_t b);
BlockRange read_blocks(const FlattenKvArgs& args, std::int32_t b);
BlockRange read_blocks(const AttentionArgs& args, std::int32_t b);

/// Checks that no block is written for two logical blocks, of one sequence or of two. check_lengths() must have passed.
/// `owner` is whose table it is.
void check_no_overlap(const WriteKvArgs& args, std::string_view owner = "WriteKvArgs");

/// The writing that decode() does besides attention (fuse_write.k is set), as a call of its own; `finished` is left to
/// the caller.
WriteKvArgs write_of(const AttentionArgs& args);

/// Entries of the block table that the operations may read: the length of a copy of it.
std::int64_t table_entries(const BlockTable& table, std::int32_t batch);

}  // namespace pagedkv::common
