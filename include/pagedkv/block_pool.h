#pragma once
// A slab of equal blocks: which are free, and how many sequences share each of the others.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "pagedkv/core/layout.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Hands out the blocks of one slab with reference counts. Block i lies at slab + i * block_bytes.
///
/// allocate(), retain(), release() and every query take constant time per block and never touch the memory of the
/// blocks, which may therefore be device memory. Freshly allocated blocks hold whatever was there before.
///
/// Not thread safe: one thread at a time, as a scheduler has it. Neither copyable nor movable, because sequences
/// (block_table.h) keep a pointer to their pool.
class BlockPool {
 public:
  /// A pool over memory of the caller, which outlives it.
  /// @param layout      gives block_bytes
  /// @param slab        host or device memory, 16-byte aligned, not null
  /// @param slab_bytes  size of the memory; its slab_bytes / block_bytes whole blocks are used, 1 .. 2^31-1 of them
  /// @throws Error (invalid_argument)
  BlockPool(const BlockLayout& layout, void* slab, std::size_t slab_bytes);

  /// A pool over host memory of its own, 64-byte aligned and not initialised.
  /// @param blocks  1 .. 2^31-1
  /// @throws Error (invalid_argument); std::bad_alloc if there is not so much memory
  BlockPool(const BlockLayout& layout, std::int32_t blocks);

  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  /// One block with one reference, or nothing if none is free. The block freed last comes first.
  std::optional<BlockId> allocate();

  /// Fills `out` with blocks of one reference each, or returns false and changes nothing if fewer are free.
  bool allocate(std::span<BlockId> out);

  /// Adds a reference to a block that is in use.
  /// @throws Error (invalid_argument) if the pool has no such block; (invalid_state) if it is free
  void retain(BlockId id);

  /// Drops a reference; the last one frees the block.
  /// @throws Error (invalid_argument) if the pool has no such block; (invalid_state) if it is free already
  void release(BlockId id);

  /// References to a block, 0 if it is free.
  /// @throws Error (invalid_argument) if the pool has no such block
  std::int64_t references(BlockId id) const;

  /// Where a block lies, in the memory space of the slab.
  /// @throws Error (invalid_argument) if the pool has no such block
  char* address(BlockId id) const;

  std::int32_t blocks() const noexcept { return static_cast<std::int32_t>(references_.size()); }
  std::int32_t free_blocks() const noexcept { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t used_blocks() const noexcept { return blocks() - free_blocks(); }
  char* slab() const noexcept { return slab_; }
  const BlockLayout& layout() const noexcept { return layout_; }

 private:
  struct FreeHost {
    void operator()(void* p) const noexcept;
  };

  BlockPool(const BlockLayout& layout, std::unique_ptr<void, FreeHost> owned, std::int32_t blocks);

  /// Position of a block in references_.
  std::size_t checked(BlockId id) const;

  BlockLayout layout_;
  std::unique_ptr<void, FreeHost> owned_;
  char* slab_ = nullptr;
  std::vector<BlockId> free_;  // a stack
  std::vector<std::int64_t> references_;
};

}  // namespace pagedkv
