#pragma once
// What the examples need besides the library: numbers in place of a model's, and memory for a workspace.

#include <cstddef>
#include <vector>

#include "pagedkv/ops.h"

namespace example {

inline constexpr int kKvHeads = 2;
inline constexpr int kQHeads = 4;
inline constexpr int kHeadDim = 64;

/// Queries, keys and values of some new tokens, packed [tokens][heads][head_dim].
struct Projections {
  std::vector<float> q;
  std::vector<float> k;
  std::vector<float> v;

  /// Adds a token: any numbers that depend on the sequence and the position alone.
  void add_token(int sequence, int position) {
    add_row(q, kQHeads, 3 * sequence, position);
    add_row(k, kKvHeads, 3 * sequence + 1, position);
    add_row(v, kKvHeads, 3 * sequence + 2, position);
  }

 private:
  static void add_row(std::vector<float>& rows, int heads, int stream, int position) {
    for (int i = 0; i < heads * kHeadDim; ++i) {
      const unsigned x = static_cast<unsigned>(stream * 7919 + position * 104729 + i) * 2654435761u;
      rows.push_back(static_cast<float>(x >> 8) / 16777216.0F - 0.5F);
    }
  }
};

/// 256-byte aligned memory for an operation.
class WorkspaceMemory {
 public:
  explicit WorkspaceMemory(std::size_t bytes) : lines_(bytes / sizeof(Line) + 1) {}
  operator pagedkv::Workspace() { return {lines_.data(), lines_.size() * sizeof(Line)}; }

 private:
  struct alignas(256) Line {
    std::byte bytes[256];
  };
  std::vector<Line> lines_;
};

}  // namespace example
