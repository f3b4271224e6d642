#pragma once
// What lies where in the workspace. decode_workspace_bytes() and the launcher carve it the same way.

#include <cstddef>
#include <cstdint>

#include "cuda/decode/policy.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::decode {

struct WorkspaceLayout {
  int splits = 1;            ///< that a row has room for; with 1 there are no partial results
  std::size_t o_bytes = 0;   ///< float32 [max_total_q][q_heads][splits][v_dim]
  std::size_t ml_bytes = 0;  ///< behind that: 2 float32 [max_total_q][q_heads][splits]
  std::size_t bytes = 0;     ///< all
};

inline WorkspaceLayout workspace_layout(const DecodeArgs& args) {
  WorkspaceLayout l;
  l.splits = max_splits(args.layout.format.k, args.layout.format.v, args.layout.head_dim, args.max_k_len);
  if (l.splits > 1) {
    const auto slots = static_cast<std::size_t>(args.max_total_q) * static_cast<std::size_t>(args.q_heads) *
                       static_cast<std::size_t>(l.splits);
    l.o_bytes = slots * static_cast<std::size_t>(value_dim(args.layout.head_dim)) * sizeof(float);
    l.ml_bytes = slots * 2 * sizeof(float);
  }
  l.bytes = l.o_bytes + l.ml_bytes;
  return l;
}

}  // namespace pagedkv::cuda::impl::decode
