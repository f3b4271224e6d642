#include "bench/gpu/paged_slab.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <random>

namespace bench {

std::vector<std::int32_t> cumulative(const std::vector<int>& lengths) {
  std::vector<std::int32_t> cu(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), cu.begin() + 1);
  return cu;
}

PagedSlab::PagedSlab(const pagedkv::BlockLayout& layout, const std::vector<int>& k_len, std::uint64_t seed) {
  std::vector<int> count;
  for (const int k : k_len) count.push_back((k + layout.block_len - 1) / layout.block_len);
  const std::vector<std::int32_t> cu_blocks = cumulative(count);
  blocks_ = cu_blocks.back();
  std::vector<std::int32_t> order(static_cast<std::size_t>(blocks_));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(seed);
  std::shuffle(order.begin(), order.end(), random);
  slab_ = Buffer(static_cast<std::size_t>(layout.block_bytes * blocks_));
  cu_blocks_ = to_device(cu_blocks);
  indices_ = to_device(order);
}

pagedkv::BlockTable PagedSlab::table() const {
  pagedkv::BlockTable t;
  t.indices = indices_.as<std::int32_t>();
  t.slab = slab_.as<char>();
  t.slab_blocks = blocks_;
  t.cu_blocks = cu_blocks_.as<std::int32_t>();
  return t;
}

}  // namespace bench
