#pragma once
// What a cache layout can hold. make_layout() and the operations share it.

#include <string_view>

#include "pagedkv/cache_config.h"

namespace pagedkv::common {

/// Checks every field of a configuration, and that each region of its layout would start 16-byte aligned.
/// @param owner what to call the struct in an error: "CacheConfig", "WriteKvArgs.layout"
void check_cache_config(std::string_view owner, const CacheConfig& config);

/// Checks a layout that may have been filled in by hand: its configuration as above, and that its offsets are the ones
/// that follow from it.
void check_layout(std::string_view owner, const BlockLayout& layout);

}  // namespace pagedkv::common
