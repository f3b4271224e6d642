#include "pagedkv/block_table.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/args_check.h"
#include "common/check.h"
#include "common/format.h"
#include "pagedkv/error.h"

namespace pagedkv {

std::int32_t local_tokens(const ContextParallel& cp, std::int32_t length) {
  common::check_context_parallel("local_tokens", cp);
  common::check_at_least("local_tokens", "length", length, 0);
  return core::Ownership(cp).count(length);
}

SequenceBlocks::SequenceBlocks(BlockPool& pool) noexcept : pool_(&pool) {}

SequenceBlocks::~SequenceBlocks() {
  shrink(0);
}

SequenceBlocks::SequenceBlocks(SequenceBlocks&& other) noexcept
    : pool_(other.pool_),
      blocks_(std::exchange(other.blocks_, {})),
      tokens_(std::exchange(other.tokens_, 0)),
      readonly_blocks_(std::exchange(other.readonly_blocks_, 0)) {}

SequenceBlocks& SequenceBlocks::operator=(SequenceBlocks&& other) noexcept {
  SequenceBlocks moved(std::move(other));
  std::swap(pool_, moved.pool_);
  std::swap(blocks_, moved.blocks_);
  std::swap(tokens_, moved.tokens_);
  std::swap(readonly_blocks_, moved.readonly_blocks_);
  return *this;
}

std::int32_t SequenceBlocks::blocks_of(std::int32_t tokens) const noexcept {
  const std::int32_t block_len = pool_->layout().block_len;
  return tokens / block_len + (tokens % block_len != 0 ? 1 : 0);
}

std::int32_t SequenceBlocks::checked_length(std::int32_t added) const {
  common::check_range("SequenceBlocks", "tokens", added, 0, std::numeric_limits<std::int32_t>::max() - tokens_);
  return tokens_ + added;
}

bool SequenceBlocks::last_block_is_shared() const {
  return tokens_ % pool_->layout().block_len != 0 && pool_->references(blocks_.back()) > 1;
}

std::int32_t SequenceBlocks::blocks_for(std::int32_t tokens) const {
  const std::int32_t length = checked_length(tokens);
  return blocks_of(length) - blocks_of(tokens_) + (tokens > 0 && last_block_is_shared() ? 1 : 0);
}

std::optional<SequenceBlocks::Appended> SequenceBlocks::append(std::int32_t tokens) {
  const auto needed = static_cast<std::size_t>(blocks_for(tokens));
  const bool copy = tokens > 0 && last_block_is_shared();
  const std::size_t before = blocks_.size();
  blocks_.resize(before + needed);
  if (!pool_->allocate(std::span(blocks_).subspan(before))) {
    blocks_.resize(before);
    return std::nullopt;
  }
  Appended result;
  if (copy) {
    // The first new block takes the place of the shared one.
    const auto shared = blocks_.begin() + static_cast<std::ptrdiff_t>(before) - 1;
    result.copy = BlockCopy{*shared, *(shared + 1), tokens_ % pool_->layout().block_len};
    pool_->release(*shared);
    blocks_.erase(shared);
  }
  tokens_ += tokens;
  return result;
}

void SequenceBlocks::truncate(std::int32_t tokens) {
  common::check_range("SequenceBlocks", "tokens", tokens, 0, tokens_);
  shrink(tokens);
}

void SequenceBlocks::shrink(std::int32_t tokens) {
  const auto keep = static_cast<std::size_t>(blocks_of(tokens));
  // Last block first, so that the pool hands them out in their old order.
  while (blocks_.size() > keep) {
    pool_->release(blocks_.back());
    blocks_.pop_back();
  }
  tokens_ = tokens;
  readonly_blocks_ = std::min(readonly_blocks_, tokens / pool_->layout().block_len);
}

SequenceBlocks SequenceBlocks::fork(std::int32_t tokens) const {
  common::check_range("SequenceBlocks", "tokens", tokens, 0, tokens_);
  SequenceBlocks child(*pool_);
  child.blocks_.assign(blocks_.begin(), blocks_.begin() + blocks_of(tokens));
  for (const BlockId id : child.blocks_) pool_->retain(id);
  child.tokens_ = tokens;
  child.readonly_blocks_ = tokens / pool_->layout().block_len;
  return child;
}

BatchTable make_batch_table(const BlockPool& pool, std::span<const std::span<const BlockId>> sequences) {
  std::size_t entries = 0;
  for (const auto& blocks : sequences) entries += blocks.size();
  constexpr auto kMost = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  if (entries > kMost) {
    throw Error(ErrorCode::invalid_argument, "sequences", common::formatted("{} blocks in all", entries),
                common::formatted("at most {}", kMost));
  }
  BatchTable table;
  table.slab = pool.slab();
  table.slab_blocks = pool.blocks();
  table.cu_blocks.reserve(sequences.size() + 1);
  table.indices.reserve(entries);
  table.pointers.reserve(entries);
  table.cu_blocks.push_back(0);
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    for (std::size_t j = 0; j < sequences[b].size(); ++j) {
      const BlockId id = sequences[b][j];
      const bool ours = to_index(id) >= 0 && to_index(id) < pool.blocks();
      if (!ours || pool.references(id) == 0) {
        throw Error(ours ? ErrorCode::invalid_state : ErrorCode::invalid_argument,
                    common::formatted("sequences[{}][{}]", b, j),
                    common::formatted("block {}{}", to_index(id), ours ? ", which is free" : ""),
                    common::formatted("a block in use of the pool's 0 .. {}", pool.blocks() - 1));
      }
      table.indices.push_back(to_index(id));
      table.pointers.push_back(pool.address(id));
    }
    table.cu_blocks.push_back(static_cast<std::int32_t>(table.indices.size()));
  }
  return table;
}

namespace {

// Stand-ins for the data() of empty vectors, which may be null, while a table without entries is a valid one.
constexpr std::int32_t kNoIndex = 0;
constexpr char* kNoPointer = nullptr;

}  // namespace

BlockTable BatchTable::by_index() const {
  BlockTable t;
  t.indices = indices.empty() ? &kNoIndex : indices.data();
  t.slab = slab;
  t.slab_blocks = slab_blocks;
  t.cu_blocks = cu_blocks.data();
  return t;
}

BlockTable BatchTable::by_pointer() const {
  BlockTable t;
  t.pointers = pointers.empty() ? &kNoPointer : pointers.data();
  t.cu_blocks = cu_blocks.data();
  return t;
}

}  // namespace pagedkv
