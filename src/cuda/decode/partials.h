#pragma once
// Where the splits' results lie in the workspace. decode_workspace_bytes() and the launcher carve it the same way.

#include <cstddef>
#include <cstdint>

#include "cuda/decode/policy.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::decode {

struct PartialsLayout {
  int splits = 1;            ///< that a row has room for; with 1 there are no partial results
  std::size_t o_bytes = 0;   ///< float32 [max_total_q][q_heads][splits][v_dim]
  std::size_t ml_bytes = 0;  ///< behind it, 2 float32 [max_total_q][q_heads][splits]
};

inline PartialsLayout partials_layout(const DecodeArgs& args) {
  PartialsLayout l;
  l.splits = max_splits(args.layout.format.k, args.layout.format.v, args.layout.head_dim, args.max_k_len);
  if (l.splits == 1) return l;
  const auto slots = static_cast<std::size_t>(args.max_total_q) * static_cast<std::size_t>(args.q_heads) *
                     static_cast<std::size_t>(l.splits);
  l.o_bytes = slots * static_cast<std::size_t>(value_dim(args.layout.head_dim)) * sizeof(float);
  l.ml_bytes = slots * 2 * sizeof(float);
  return l;
}

}  // namespace pagedkv::cuda::impl::decode
