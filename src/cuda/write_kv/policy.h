#pragma once
// How write_kv cuts its work. Plain functions of the shape, tested on the host.

#include <algorithm>
#include <cstdint>

namespace pagedkv::cuda::impl::write_kv {

inline constexpr int kThreads = 128;
inline constexpr int kWarps = kThreads / 32;
/// CTAs that an SM should hold at once; bounds the registers.
inline constexpr int kCtasPerSm = 4;
/// Heads that a warp has in shared memory at once: one that it works on, the others on their way.
inline constexpr int kStages = 3;
/// Most tokens of a CTA.
inline constexpr int kMaxTokens = 32;

/// Variants in the matrix: streaming.cuh, and few_tokens.cuh for launches that are too small to fill the device.
inline constexpr int kManyTokens = 0;
inline constexpr int kFewTokens = 1;

/// The variant for a launch. Few tokens: less than a warp's rows of one head per SM.
constexpr int choose_variant(std::int64_t max_tokens, int kv_heads, int head_dim, int sms) {
  const bool built = head_dim == 128 || head_dim == 256;
  return built && max_tokens * kv_heads <= std::int64_t{8} * sms ? kFewTokens : kManyTokens;
}

/// Whether rows with a bias have loops of their own for each type and rotation. They take long to compile; elsewhere
/// one piece of code writes all rows with a bias.
template <int HeadDim>
inline constexpr bool kHasBiasLoops = HeadDim == 128;

struct Grid {
  int chunk;            ///< new tokens of a CTA, a multiple of the rows of a warp
  int heads;            ///< KV heads of a CTA
  int heads_per_task;   ///< of a warp at a time
  std::int64_t chunks;  ///< CTAs along the tokens
  int head_groups;      ///< CTAs along the heads
};

constexpr int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

/// @param rows rows that a warp handles at once: 4, 8 or 16 tokens of one head, keys or values
/// @param sides 2, or 1 for shared_kv
/// @param dense every row is stored as int4: the less is stored, the more the prologue weighs
constexpr Grid choose_grid(std::int64_t max_tokens, int kv_heads, int sides, int rows, bool dense, int cp_size,
                           int sms) {
  const auto chunks = [&](int chunk) { return (max_tokens + chunk - 1) / chunk; };
  // Many tokens: 16 or 32 at a time (all that scanning finds, where most belong to other ranks) and up to 8 heads, so
  // that a warp has a few heads to walk over and the prologue (search, sines) is shared by all of them.
  Grid g{cp_size > 1 || dense ? kMaxTokens : std::max(16, rows), std::min(kv_heads, 8), 1, 0, 0};
  if (chunks(g.chunk) * ceil_div(kv_heads, g.heads) < sms) {
    // Few: spread over as many SMs as there are, down to one head of one warp's rows.
    g.chunk = cp_size > 1 ? kMaxTokens : rows;
    while (g.heads > 1 && chunks(g.chunk) * ceil_div(kv_heads, g.heads) < sms) g.heads = (g.heads + 1) / 2;
  }
  const int parts =
      std::max(1, kWarps / (g.chunk / rows * sides));  // tasks that one group of rows and side is cut into
  g.heads_per_task = ceil_div(g.heads, parts);
  g.chunks = chunks(g.chunk);
  g.head_groups = ceil_div(kv_heads, g.heads);
  return g;
}

}  // namespace pagedkv::cuda::impl::write_kv
