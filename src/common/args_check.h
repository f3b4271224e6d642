#pragma once
// Checks of the argument structs that read no array: ranges, null pointers, alignment, strides, and the layout. Both
// backends run them before anything else. The contents of the arrays: lengths_check.h.
//
// With batch 0 there is nothing to do, so pointers may be null.

#include <cstdint>
#include <string_view>

#include "pagedkv/ops.h"

namespace pagedkv::common {

enum class Backend : std::uint8_t { cpu, cuda };

inline constexpr std::int32_t kMaxBatch = 65536;
inline constexpr std::int32_t kMaxHeads = 65536;

void check_args(const WriteKvArgs& args, Backend backend);
void check_args(const FlattenKvArgs& args, Backend backend);
/// `decode`: fields that belong to decode() alone may be set.
void check_args(const AttentionArgs& args, Backend backend, bool decode);
void check_args(const ApplyRopeArgs& args, Backend backend);
void check_args(const MergePartialsArgs& args, Backend backend);

/// A context-parallel rank; fields are called `owner`.cp.rank and so on.
void check_context_parallel(std::string_view owner, const ContextParallel& cp);

/// A RopeTable against the head_dim it is used with.
void check_rope_table(std::string_view owner, const core::RopeTable& rope, std::int32_t head_dim);

}  // namespace pagedkv::common
