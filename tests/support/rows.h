#pragma once
// The ways in which callers lay out rows of keys and values.

#include <cstdint>
#include <vector>

#include "pagedkv/ops.h"

namespace support {

enum class RowOrder {
  packed,            ///< K and V apart, each [token][head][D]
  packed_qkv,        ///< [token][q heads, K heads, V heads][D], as a fused projection gives them
  batch_head_token,  ///< K and V apart, each [batch][head][token][D]
  flattened,         ///< [head][K, V][token][D]
};
inline constexpr RowOrder kRowOrders[] = {RowOrder::packed, RowOrder::packed_qkv, RowOrder::batch_head_token,
                                          RowOrder::flattened};

/// One array that holds K and V rows of a ragged batch.
struct RowLayout {
  pagedkv::TokenStrides strides;
  std::int64_t k_first = 0;   ///< element of the K pointer
  std::int64_t v_first = 0;   ///< element of the V pointer
  std::int64_t elements = 0;  ///< of the whole array

  /// Element of channel 0 of token i of a sequence that starts at row `start`.
  std::int64_t k(int batch, std::int64_t start, std::int64_t i, int head) const {
    return k_first + offset(batch, start, i, head);
  }
  std::int64_t v(int batch, std::int64_t start, std::int64_t i, int head) const {
    return v_first + offset(batch, start, i, head);
  }

 private:
  std::int64_t offset(int batch, std::int64_t start, std::int64_t i, int head) const {
    return batch * strides.batch + start * strides.start + i * strides.token + head * strides.head;
  }
};

/// @param rows     rows of the batch in all, the first start included
/// @param longest  rows of the longest sequence
inline RowLayout row_layout(RowOrder order, int batch, std::int64_t rows, std::int64_t longest, int heads, int dim) {
  constexpr int kQHeads = 3;
  const std::int64_t row = std::int64_t{heads} * dim;
  switch (order) {
    case RowOrder::packed:
      return {pagedkv::packed_strides(heads, dim), 0, rows * row, 2 * rows * row};
    case RowOrder::packed_qkv: {
      const std::int64_t token = std::int64_t{kQHeads + 2 * heads} * dim;
      return {{0, token, token, dim}, std::int64_t{kQHeads} * dim, std::int64_t{kQHeads + heads} * dim, rows * token};
    }
    case RowOrder::batch_head_token: {
      const std::int64_t all = batch * longest * row;
      return {{longest * row, 0, dim, longest * dim}, 0, all, 2 * all};
    }
    case RowOrder::flattened:
      return {{0, dim, dim, 2 * rows * dim}, 0, rows * dim, 2 * rows * row};
  }
  return {};
}

}  // namespace support
