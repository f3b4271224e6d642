#include "pagedkv/block_pool.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "common/check.h"
#include "common/format.h"
#include "common/layout_check.h"
#include "pagedkv/error.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace pagedkv {
namespace {

constexpr std::align_val_t kHostAlignment{64};
constexpr std::int64_t kMostBlocks = std::numeric_limits<std::int32_t>::max();

std::int32_t count_blocks(const BlockLayout& layout, std::size_t slab_bytes) {
  common::check_layout("BlockPool.layout", layout);
  const std::size_t blocks = slab_bytes / static_cast<std::size_t>(layout.block_bytes);
  if (blocks < 1 || blocks > static_cast<std::size_t>(kMostBlocks)) {
    common::reject("BlockPool", "slab_bytes", slab_bytes,
                   common::formatted("memory for 1 .. {} blocks of {} bytes", kMostBlocks, layout.block_bytes));
  }
  return static_cast<std::int32_t>(blocks);
}

/// A hint: attention visits blocks all over a slab, and with small pages it waits for address translation (decode of
/// int4: a fifth of its time).
void ask_for_huge_pages([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t kPage = 4096;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(p) + kPage - 1) / kPage * kPage;
  const std::uintptr_t last = (reinterpret_cast<std::uintptr_t>(p) + bytes) / kPage * kPage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

void* allocate_host(const BlockLayout& layout, std::int32_t blocks) {
  common::check_layout("BlockPool.layout", layout);
  common::check_range("BlockPool", "blocks", blocks, 1,
                      std::min(kMostBlocks, std::numeric_limits<std::int64_t>::max() / layout.block_bytes));
  const auto bytes = static_cast<std::size_t>(blocks * layout.block_bytes);
  void* p = ::operator new(bytes, kHostAlignment);
  ask_for_huge_pages(p, bytes);
  return p;
}

[[noreturn]] void reject_free(BlockId id) {
  throw Error(ErrorCode::invalid_state, "BlockPool: block", common::formatted("{}, which is free", to_index(id)),
              "a block that is in use");
}

}  // namespace

void BlockPool::FreeHost::operator()(void* p) const noexcept {
  ::operator delete(p, kHostAlignment);
}

BlockPool::BlockPool(const BlockLayout& layout, void* slab, std::size_t slab_bytes)
    : BlockPool(layout, std::unique_ptr<void, FreeHost>(), count_blocks(layout, slab_bytes)) {
  common::check_pointer("BlockPool", "slab", slab, 16);
  slab_ = static_cast<char*>(slab);
}

BlockPool::BlockPool(const BlockLayout& layout, std::int32_t blocks)
    : BlockPool(layout, std::unique_ptr<void, FreeHost>(allocate_host(layout, blocks)), blocks) {}

BlockPool::BlockPool(const BlockLayout& layout, std::unique_ptr<void, FreeHost> owned, std::int32_t blocks)
    : layout_(layout), owned_(std::move(owned)), slab_(static_cast<char*>(owned_.get())) {
  references_.resize(static_cast<std::size_t>(blocks));
  free_.resize(static_cast<std::size_t>(blocks));
  for (std::int32_t i = 0; i < blocks; ++i) free_[static_cast<std::size_t>(i)] = BlockId{blocks - 1 - i};
}

std::size_t BlockPool::checked(BlockId id) const {
  if (to_index(id) < 0 || to_index(id) >= blocks()) {
    throw Error(ErrorCode::invalid_argument, "BlockPool: block", common::formatted("{}", to_index(id)),
                common::formatted("0 .. {}", blocks() - 1));
  }
  return static_cast<std::size_t>(to_index(id));
}

std::optional<BlockId> BlockPool::allocate() {
  BlockId id{};
  if (!allocate(std::span(&id, 1))) return std::nullopt;
  return id;
}

bool BlockPool::allocate(std::span<BlockId> out) {
  if (out.size() > free_.size()) return false;
  for (BlockId& id : out) {
    id = free_.back();
    free_.pop_back();
    references_[static_cast<std::size_t>(to_index(id))] = 1;
  }
  return true;
}

void BlockPool::retain(BlockId id) {
  std::int64_t& references = references_[checked(id)];
  if (references == 0) reject_free(id);
  ++references;
}

void BlockPool::release(BlockId id) {
  std::int64_t& references = references_[checked(id)];
  if (references == 0) reject_free(id);
  // The capacity for all blocks is there since construction, so this cannot fail.
  if (--references == 0) free_.push_back(id);
}

std::int64_t BlockPool::references(BlockId id) const {
  return references_[checked(id)];
}

char* BlockPool::address(BlockId id) const {
  return slab_ + static_cast<std::int64_t>(checked(id)) * layout_.block_bytes;
}

}  // namespace pagedkv
