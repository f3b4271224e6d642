#pragma once
// The blocks of each sequence, and the block tables of a batch.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pagedkv/block_pool.h"
#include "pagedkv/ops.h"
#include "pagedkv/types.h"

namespace pagedkv {

/// Tokens of a sequence of `length` that a context-parallel rank owns, and so holds in its cache.
/// @throws Error (invalid_argument) naming the field of cp, or a negative length
std::int32_t local_tokens(const ContextParallel& cp, std::int32_t length);

/// A block whose first `tokens` tokens must reach another block, in all layers.
struct BlockCopy {
  BlockId from;
  BlockId to;
  std::int32_t tokens;
};

/// The blocks of one sequence on one context-parallel rank. Several sequences may share blocks; a shared block is never
/// handed out for writing: the first sequence that would write into it gets a block of its own (copy on write).
///
/// All counts are tokens that this rank owns; see local_tokens().
///
/// Not thread safe, and neither are two sequences of the same pool. Destruction releases the blocks.
class SequenceBlocks {
 public:
  /// An empty sequence. `pool` outlives it; a block holds pool.layout().block_len tokens.
  explicit SequenceBlocks(BlockPool& pool) noexcept;
  ~SequenceBlocks();
  SequenceBlocks(SequenceBlocks&& other) noexcept;
  SequenceBlocks& operator=(SequenceBlocks&& other) noexcept;

  /// What append() asks of the caller.
  struct Appended {
    /// Set when the next token would have gone into a block that another sequence shares: copy this before anything
    /// else is written to the pool's blocks, and several copies in the order in which they were returned.
    std::optional<BlockCopy> copy;
  };

  /// Makes room for `tokens` more tokens (>= 0), or returns nothing and changes nothing if the pool has too few free
  /// blocks.
  /// @throws Error (invalid_argument) if tokens is negative or the length would pass 2^31-1
  std::optional<Appended> append(std::int32_t tokens);

  /// Blocks that append(tokens) would take from the pool now.
  /// @throws Error (invalid_argument) as append()
  std::int32_t blocks_for(std::int32_t tokens) const;

  /// Forgets all but the first `tokens` tokens (0 .. tokens()) and releases the blocks that are no longer needed.
  /// @throws Error (invalid_argument)
  void truncate(std::int32_t tokens);

  /// A sequence that begins with the first `tokens` tokens (0 .. tokens()) of this one and shares their blocks.
  /// Allocates nothing. Share tokens that are written already: a copy that append() asks for later could not bring
  /// over what is still to be written.
  /// @throws Error (invalid_argument)
  SequenceBlocks fork(std::int32_t tokens) const;

  std::int32_t tokens() const noexcept { return tokens_; }
  /// Block of each logical block.
  std::span<const BlockId> blocks() const noexcept { return blocks_; }
  /// Leading blocks that fork() took over full, which this sequence never writes: for WriteKvArgs.readonly_blocks.
  std::int32_t readonly_blocks() const noexcept { return readonly_blocks_; }

 private:
  void shrink(std::int32_t tokens);
  bool last_block_is_shared() const;
  std::int32_t checked_length(std::int32_t added) const;
  std::int32_t blocks_of(std::int32_t tokens) const noexcept;

  BlockPool* pool_;
  std::vector<BlockId> blocks_;
  std::int32_t tokens_ = 0;
  std::int32_t readonly_blocks_ = 0;
};

/// Block tables of a batch in host memory. The CUDA backend wants the arrays copied to the device; everything else of
/// the views stays the same there.
struct BatchTable {
  std::vector<std::int32_t> cu_blocks;  ///< [batch+1] first entry of each sequence
  std::vector<std::int32_t> indices;    ///< [entries] block numbers
  std::vector<char*> pointers;          ///< [entries] block addresses, in the memory space of the slab
  char* slab = nullptr;
  std::int32_t slab_blocks = 0;

  /// Views for the CPU backend, valid while this object lives unchanged.
  BlockTable by_index() const;
  BlockTable by_pointer() const;
};

/// The tables of sequences whose blocks come from one pool, in the order given.
/// @param sequences  [batch] the blocks of each sequence, logical order; may be empty, as may each of them
/// @throws Error naming sequences[b][j] if a block is not of the pool (invalid_argument) or is free (invalid_state);
///         (invalid_argument) if there are more than 2^31-1 entries
BatchTable make_batch_table(const BlockPool& pool, std::span<const std::span<const BlockId>> sequences);

}  // namespace pagedkv
