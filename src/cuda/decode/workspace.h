#pragma once
// What lies where in the workspace. decode_workspace_bytes() and the launcher carve it the same way.

#include <cstddef>
#include <cstdint>

#include "cuda/decode/policy.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::decode {

struct WorkspaceLayout {
  int splits = 1;                  ///< that a row has room for; with 1 there are no partial results
  int runs = 0;                    ///< Partials::runs
  std::size_t counters_bytes = 0;  ///< Partials::counters, at the start
  std::size_t o_bytes = 0;         ///< Partials::o, behind that
  std::size_t ml_bytes = 0;        ///< Partials::ml, behind that
  std::size_t bytes = 0;           ///< all
};

inline WorkspaceLayout workspace_layout(const DecodeArgs& args) {
  WorkspaceLayout l;
  l.splits = max_splits(args.layout.format.k, args.layout.format.v, args.layout.head_dim, args.layout.kv_heads,
                        args.max_k_len);
  l.runs = most_runs(l.splits);
  if (l.splits > 1) {
    const auto rows = static_cast<std::size_t>(args.max_total_q) * static_cast<std::size_t>(args.q_heads);
    const auto splits = static_cast<std::size_t>(l.splits);
    const auto runs = static_cast<std::size_t>(l.runs);
    l.counters_bytes = (rows * (1 + runs) * sizeof(std::uint64_t) + 15) / 16 * 16;
    l.o_bytes = rows * splits * static_cast<std::size_t>(value_dim(args.layout.head_dim)) * sizeof(float);
    l.ml_bytes = rows * (splits + runs) * 2 * sizeof(float);
  }
  l.bytes = l.counters_bytes + l.o_bytes + l.ml_bytes;
  return l;
}

}  // namespace pagedkv::cuda::impl::decode
