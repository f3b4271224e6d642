#pragma once
// How flatten_kv cuts its work. Plain functions of the shape, tested on the host.

#include <algorithm>
#include <cstdint>

namespace pagedkv::cuda::impl::flatten_kv {

/// Tokens and most KV heads of a CTA, which has a warp for each side of each of its heads.
inline constexpr int kChunk = 16;
inline constexpr int kHeads = 2;
/// CTAs of so many heads that an SM should hold at once, without and with RoPE; bounds the registers.
inline constexpr int kCtasPerSm = 10;
inline constexpr int kCtasPerSmRope = 4;
/// Chunks of 8 elements of a warp's rows, per lane.
template <int kDim>
inline constexpr int kItems = (kChunk * (kDim / 8) + 31) / 32;
/// How many of them a lane has in flight, if one is stored in so many bytes.
template <int kDim, int kBytes>
inline constexpr int kInFlight = std::min(kBytes == 16 ? 4 : 8, kItems<kDim>);

struct Grid {
  int heads;            ///< KV heads of a CTA
  std::int64_t chunks;  ///< CTAs along the tokens
  int head_groups;      ///< CTAs along the heads
};

constexpr Grid choose_grid(std::int64_t max_tokens, int kv_heads, int sms) {
  Grid g{std::min(kv_heads, kHeads), (max_tokens + kChunk - 1) / kChunk, 0};
  const auto groups = [&](int heads) { return (kv_heads + heads - 1) / heads; };
  while (g.heads > 1 && g.chunks * groups(g.heads) < sms) g.heads = (g.heads + 1) / 2;
  g.head_groups = groups(g.heads);
  return g;
}

}  // namespace pagedkv::cuda::impl::flatten_kv
