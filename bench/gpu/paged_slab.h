#pragma once
// A batch's blocks on the device, and the table that leads to them.

#include <cstdint>
#include <vector>

#include "bench/gpu/measure.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/ops.h"

namespace bench {

/// [n + 1] sums of the lengths before each.
std::vector<std::int32_t> cumulative(const std::vector<int>& lengths);

/// Memory for sequences of k_len tokens, their blocks in pseudo-random order. What is in it is not set.
class PagedSlab {
 public:
  PagedSlab() = default;
  PagedSlab(const pagedkv::BlockLayout& layout, const std::vector<int>& k_len, std::uint64_t seed);

  /// Device memory, this object's.
  pagedkv::BlockTable table() const;
  Buffer& slab() { return slab_; }

 private:
  Buffer slab_;
  Buffer cu_blocks_;
  Buffer indices_;
  std::int32_t blocks_ = 0;
};

}  // namespace bench
