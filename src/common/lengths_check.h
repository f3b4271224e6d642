#pragma once
// Checks of what the arrays of an argument struct hold: lengths, block tables, per-sequence RoPE data. The arrays must
// be readable by the host. The CPU backend passes its arguments as they are; a backend whose arrays lie elsewhere
// passes a copy of the struct in which lengths, table entries and per-sequence arrays point to host copies (data
// pointers, block addresses and the slab are compared, never dereferenced).
//
// check_args() must have passed before. Only table entries that the operation dereferences are looked at.

#include <cstdint>

#include "pagedkv/ops.h"

namespace pagedkv::common {

void check_lengths(const WriteKvArgs& args);
void check_lengths(const FlattenKvArgs& args);
void check_lengths(const AttentionArgs& args);
void check_lengths(const ApplyRopeArgs& args);

/// Entries of the block table that the operations may read: the length of a copy of it.
std::int64_t table_entries(const BlockTable& table, std::int32_t batch);

}  // namespace pagedkv::common
