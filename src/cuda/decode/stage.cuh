#pragma once
// What a tile looks like in shared memory.

#include "cuda/decode/policy.h"

namespace pagedkv::cuda::impl::decode {

/// Where a stage of the ring holds what. Rows are swizzled in 16-byte chunks (policy.h).
template <KvType K, KvType V, int D>
struct Stage {
  static constexpr int kTokens = tile_tokens(K, V, D);
  static constexpr int kRowK = row_bytes(K, D);
  static constexpr int kRowV = row_bytes(V, D);
  static constexpr bool kShared = shares_rows(D);
  static constexpr int kV = kShared ? 0 : kTokens * kRowK;
  static constexpr int kParamK = kTokens * data_bytes(K, V, D);
  static constexpr int kParamV = kParamK + (kShared ? 0 : kTokens * param_bytes(K));
  static constexpr int kBytes = stage_bytes(K, V, D);
};

}  // namespace pagedkv::cuda::impl::decode
