#pragma once
// Which sequences a CTA's chunk of a ragged batch belongs to, found from the cumulative lengths on the device. All
// sequences' tokens count through as one flat range, which CTAs cut into equal chunks: no CTA is empty, however uneven
// the lengths are.

#include <cstdint>

#include "pagedkv/core/fast_divmod.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda {

/// Most tokens of a chunk: one per lane of a warp.
inline constexpr int kMaxChunk = 32;

/// A sequence with tokens in the chunk.
struct Span {
  std::int32_t sequence;  ///< -1: none starts here
  std::int32_t begin;     ///< its tokens are [begin, end) of the flat range
  std::int32_t end;
  std::int32_t history;   ///< position of token `begin` in the sequence
  std::int32_t readonly;  ///< leading logical blocks that are not written
  std::int64_t entry;     ///< block table entry of its logical block 0
};

/// Finds the sequences with tokens in [t0, t1): spans[i] is the one whose first token in the chunk is t0 + i. All
/// threads of the CTA call it; the result is visible to them when it returns.
///
/// `cu` are the batch + 1 cumulative lengths that define the flat range; `load(b)` returns the Span of sequence b and
/// is called for sequences outside the chunk too, so that its loads are in flight together. One round of loads for up
/// to kThreads sequences, two for up to kThreads^2.
template <int kThreads, class Load>
__device__ __forceinline__ void find_spans(const std::int32_t* cu, std::int32_t batch, std::int64_t t0, std::int64_t t1,
                                           Span* spans, Load load) {
  const int tid = static_cast<int>(threadIdx.x);
  std::int32_t low = 0;  // the sequence of token t0 is in [low, low + n)
  std::int32_t n = batch;
  while (n > kThreads) {
    const std::int32_t step = (n + kThreads - 1) / kThreads;
    const std::int32_t sample = (tid + 1) * step;
    const bool before = sample < n && cu[low + sample] <= t0;
    const std::int32_t count = __syncthreads_count(before);
    low += count * step;
    n = min(step, n - count * step);
  }
  Span s{};
  if (low + tid < batch) s = load(low + tid);
  if (tid < kMaxChunk) spans[tid].sequence = -1;
  __syncthreads();
  for (std::int32_t first = low;;) {
    if (first + tid < batch && s.begin < s.end && s.end > t0 && s.begin < t1) {
      spans[max(static_cast<std::int64_t>(s.begin), t0) - t0] = s;
    }
    first += kThreads;
    if (first >= batch || cu[first] >= t1) break;
    if (first + tid < batch) s = load(first + tid);
  }
  __syncthreads();
}

/// The tokens of a chunk that a CTA works on, in shared memory.
struct Tokens {
  std::int32_t sequence[kMaxChunk];
  std::int32_t index[kMaxChunk];     ///< among the sequence's tokens of the flat range
  std::int32_t position[kMaxChunk];  ///< in the sequence
  std::int32_t row[kMaxChunk];       ///< in its block
  std::int64_t entry[kMaxChunk];     ///< table entry of its block
  std::int64_t offset[kMaxChunk];    ///< of its head 0 in k and v, elements; set for all slots
  std::int32_t count;
  bool one_sequence;  ///< all belong to the same one
};

/// Where a token stands; `local` is its index in this rank's cache, or -1 to leave it out.
struct Place {
  std::int32_t position;
  std::int32_t local;
};

/// Lists the tokens of [t0, t1) that `place(span, index)` does not leave out. One warp calls it, with the span of token
/// t0 + lane in each lane below t1 - t0.
template <class PlaceOf>
__device__ __forceinline__ void list_tokens(Tokens& tokens, const Span& s, std::int64_t t0, std::int64_t t1,
                                            const core::FastDivmod& block_len, const TokenStrides& strides,
                                            std::int64_t start_origin, PlaceOf place) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t t = t0 + lane;
  const auto index = static_cast<std::int32_t>(t - s.begin);
  Place at{0, -1};
  if (t < t1) at = place(s, index);
  std::int32_t block = 0;
  std::int32_t row = 0;
  block_len(block, row, max(at.local, 0));
  const bool keep = at.local >= 0 && block >= s.readonly;
  const unsigned kept = __ballot_sync(0xffffffffu, keep);
  const std::int64_t offset =
      strides.batch * s.sequence + strides.start * (s.begin - start_origin) + strides.token * std::int64_t{index};
  // Slots behind the last token have the offset of the first, so that whole groups of slots can be read.
  const std::int64_t first_offset = __shfl_sync(0xffffffffu, offset, max(0, __ffs(static_cast<int>(kept)) - 1));
  if (lane >= __popc(kept)) tokens.offset[lane] = first_offset;
  if (keep) {
    const int i = __popc(kept & ((1u << lane) - 1u));
    tokens.sequence[i] = s.sequence;
    tokens.index[i] = index;
    tokens.position[i] = at.position;
    tokens.row[i] = row;
    tokens.entry[i] = s.entry + block;
    tokens.offset[i] = offset;
  }
  const std::int32_t first = __shfl_sync(0xffffffffu, s.sequence, 0);
  const bool one = __all_sync(0xffffffffu, t >= t1 || s.sequence == first);
  if (lane == 0) {
    tokens.count = __popc(kept);
    tokens.one_sequence = one;
  }
}

/// The same with the spans that find_spans() found; t0 < t1.
template <class PlaceOf>
__device__ __forceinline__ void list_tokens(Tokens& tokens, const Span* spans, std::int64_t t0, std::int64_t t1,
                                            const core::FastDivmod& block_len, const TokenStrides& strides,
                                            std::int64_t start_origin, PlaceOf place) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // A token's span is the last one that starts at or before it.
  const unsigned starts = __ballot_sync(0xffffffffu, spans[lane].sequence >= 0);
  const Span s = spans[max(0, 31 - __clz(static_cast<int>(starts & (0xffffffffu >> (31 - lane)))))];
  list_tokens(tokens, s, t0, t1, block_len, strides, start_origin, place);
}

/// A chunk of the flat range.
struct TokenChunk {
  std::int32_t origin;  ///< where the flat range starts
  std::int64_t t0;
  std::int64_t t1;  ///< not above t0: no tokens
  Span span;        ///< of token t0 + lane, if that is below t1
};

/// The chunk of `size` tokens, at most 32, that starts `first` tokens into the flat range, found by one warp without
/// the rest of the CTA; `cu` and `load` as in find_spans(). Two rounds of loads for up to 128 sequences and one more
/// per factor of 128; lanes past the end of t0's sequence search on by themselves.
template <class Load>
__device__ __forceinline__ TokenChunk find_chunk(const std::int32_t* cu, std::int32_t batch, std::int64_t first,
                                                 int size, Load load) {
  constexpr int kSamples = 4;  // of a lane
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::int32_t low = 0;  // the sequence of token t0 is in [low, low + n)
  std::int32_t n = batch;
  std::int32_t step = 0;
  std::int32_t start[kSamples];
  const auto sample = [&] {
    step = (n + 32 * kSamples - 1) / (32 * kSamples);
#pragma unroll
    for (int i = 0; i < kSamples; ++i) {
      const std::int32_t at = (32 * i + lane + 1) * step;
      start[i] = at < n ? cu[low + at] : INT32_MAX;
    }
  };
  sample();  // together with the next two loads
  TokenChunk c{};
  c.origin = cu[0];
  c.t0 = c.origin + first;
  c.t1 = min(c.t0 + size, std::int64_t{cu[batch]});
  if (c.t0 >= c.t1) return c;
  for (;;) {
    std::int32_t before = 0;
#pragma unroll
    for (int i = 0; i < kSamples; ++i) before += __popc(__ballot_sync(0xffffffffu, start[i] <= c.t0));
    low += before * step;
    n = min(step, n - before * step);
    if (n == 1) break;
    sample();
  }
  c.span = load(low);
  const std::int64_t t = c.t0 + lane;
  if (t < c.t1 && t >= c.span.end) {
    std::int32_t high = batch;
    while (high - low > 1) {
      const std::int32_t middle = low + (high - low) / 2;
      (cu[middle] <= t ? low : high) = middle;
    }
    c.span = load(low);
  }
  return c;
}

}  // namespace pagedkv::cuda
