#pragma once
// Which keys a query sees.

#include <cstdint>

#include "pagedkv/core/hd.h"

namespace pagedkv::core {

/// Half-open range of key positions.
struct KeyRange {
  std::int32_t first;
  std::int32_t last;
};

/// Keys that the query at position `q_pos` of a sequence of `k_len` sees: causal, 0 <= q_pos - k < window (window 0
/// means no limit); not causal, all of them.
PAGEDKV_HD_CONSTEXPR KeyRange visible_keys(std::int32_t q_pos, std::int32_t k_len, bool causal, std::int32_t window) {
  if (!causal) return {0, k_len};
  const std::int32_t first = window > 0 && q_pos - window + 1 > 0 ? q_pos - window + 1 : 0;
  return {first, q_pos + 1 < k_len ? q_pos + 1 : k_len};
}

}  // namespace pagedkv::core
