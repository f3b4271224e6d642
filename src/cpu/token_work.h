#pragma once
// The tokens of a batch, cut into pieces of about equal work for parallel_for().

#include <algorithm>
#include <cstdint>

#include "cpu/rows.h"
#include "pagedkv/core/rope.h"

namespace pagedkv::cpu {

/// Pieces of a few tokens of all sequences and a range of heads: item i of items() is tokens
/// [first(i), last(i)) in the numbering of cu, heads [first_head(i), last_head(i)).
class TokenWork {
 public:
  /// Bytes that one piece should touch at least: enough to hide what handing it out costs, few enough to stay in L2.
  static constexpr std::int64_t kPieceBytes = 256 * 1024;

  /// @param cu [batch+1] cumulative tokens, not decreasing
  /// @param head_bytes bytes of one head of one token
  TokenWork(const std::int32_t* cu, std::int32_t batch, std::int32_t heads, std::int64_t head_bytes)
      : cu_(cu), batch_(batch), heads_(heads) {
    piece_heads_ = static_cast<std::int32_t>(std::clamp<std::int64_t>(kPieceBytes / head_bytes, 1, heads));
    head_pieces_ = (heads + piece_heads_ - 1) / piece_heads_;
    piece_tokens_ = std::max<std::int64_t>(1, kPieceBytes / (piece_heads_ * head_bytes));
    const std::int64_t tokens = batch == 0 ? 0 : std::int64_t{cu[batch]} - cu[0];
    items_ = (tokens + piece_tokens_ - 1) / piece_tokens_ * head_pieces_;
  }

  std::int64_t items() const { return items_; }

  /// Calls body(sequence, first, last, first_head, heads) for the parts of an item: tokens [first, last) of a sequence,
  /// counted from its own start.
  template <class Body>
  void for_each_part(std::int64_t item, Body&& body) const {
    const auto first_head = static_cast<std::int32_t>(item % head_pieces_) * piece_heads_;
    const std::int32_t heads = std::min(piece_heads_, heads_ - first_head);
    std::int64_t token = cu_[0] + item / head_pieces_ * piece_tokens_;
    const std::int64_t end = std::min<std::int64_t>(token + piece_tokens_, cu_[batch_]);
    auto b = static_cast<std::int32_t>(std::upper_bound(cu_, cu_ + batch_ + 1, token) - cu_) - 1;
    for (; token < end; ++b) {
      const std::int64_t stop = std::min<std::int64_t>(end, cu_[b + 1]);
      if (token < stop) {
        body(b, static_cast<std::int32_t>(token - cu_[b]), static_cast<std::int32_t>(stop - cu_[b]), first_head, heads);
      }
      token = stop;
    }
  }

 private:
  const std::int32_t* cu_;
  std::int32_t batch_;
  std::int32_t heads_;
  std::int32_t piece_heads_;
  std::int32_t head_pieces_;
  std::int64_t piece_tokens_;
  std::int64_t items_;
};

/// Sines and cosines of one token after the other.
class TokenRotation {
 public:
  TokenRotation(const core::RopeTable& table, RotationFn fill) : table_(table), fill_(fill), turn_(table.turn) {}

  /// To be called before the tokens of a sequence.
  void start_sequence(std::int32_t sequence) {
    sequence_ = sequence;
    if (table_.dim == 0 || table_.base == nullptr) return;
    for (int i = 0; i < table_.dim / 2; ++i) own_turn_[i] = core::turn_from_base(table_.base[sequence], i, table_.dim);
    turn_ = own_turn_;
  }

  /// Rotation of a token, valid until the next call; null if there is none. `token` counts the sequence's new tokens.
  const RotationRow* at(std::int32_t token, std::int32_t position) {
    const int pairs = table_.dim / 2;
    if (pairs == 0) return nullptr;
    std::uint32_t phase[core::kMaxRopePairs];
    if (table_.mrope == MropeMode::none) {
      const auto p = static_cast<std::uint64_t>(position);
      for (int i = 0; i < pairs; ++i) phase[i] = static_cast<std::uint32_t>(p * turn_[i] >> 32);
    } else {
      for (int i = 0; i < pairs; ++i) {
        const auto p = static_cast<std::uint64_t>(core::rope_position(table_, i, sequence_, token, position));
        phase[i] = static_cast<std::uint32_t>(p * turn_[i] >> 32);
      }
    }
    fill_(phase, pairs, table_.pairs, table_.attention_factor, row_);
    return &row_;
  }

 private:
  const core::RopeTable& table_;
  RotationFn fill_;
  const std::uint64_t* turn_;
  std::int32_t sequence_ = 0;
  std::uint64_t own_turn_[core::kMaxRopePairs];
  RotationRow row_;
};

}  // namespace pagedkv::cpu
