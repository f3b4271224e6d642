#pragma once
// Counters in the workspace by which a CTA learns that it is the last of several.
//
// The workspace's contents need no preparation, so a counter has a tag that follows from its address: a word without
// it has never been a counter there (or something else has used the memory since) and counts as zero. The last to
// arrive leaves zero. A word that has the tag by chance, one in 2^48, would count wrongly.

#include <cstdint>

#include "cuda/ptx/atomics.cuh"

namespace pagedkv::cuda::impl::decode {

/// A count in the low bits, the tag above.
inline constexpr int kCountBits = 16;
inline constexpr std::uint64_t kCountMask = (std::uint64_t{1} << kCountBits) - 1;

/// The counter at `p` when nobody has arrived.
__device__ __forceinline__ std::uint64_t no_arrivals(const std::uint64_t* p) {
  return reinterpret_cast<std::uintptr_t>(p) * 0x9e3779b97f4a7c15u & ~kCountMask;  // Knuth's multiplicative hashing
}

/// Arrives at a counter for `count` of `n`, which are at most 2^16. Returns whether these are the last: then it sees
/// what the CTAs of the others wrote before they arrived. One thread calls it, behind a barrier of its CTA.
__device__ __forceinline__ bool arrive(std::uint64_t* counter, int count, int n) {
  const auto add = static_cast<unsigned>(count);
  const std::uint64_t zero = no_arrivals(counter);
  std::uint64_t old = ptx::add_acq_rel(counter, add);
  if (((old ^ zero) & ~kCountMask) != 0) {  // added to something else
    std::uint64_t expected = old + add;
    for (;;) {
      old = ptx::compare_exchange_acq_rel(counter, expected, zero + add);
      if (old == expected) {
        old = zero;
        break;
      }
      if (((old ^ zero) & ~kCountMask) == 0) {
        old = ptx::add_acq_rel(counter, add);
        break;
      }
      expected = old;
    }
  }
  if ((old & kCountMask) + add != static_cast<unsigned>(n)) return false;
  *counter = zero;
  return true;
}

}  // namespace pagedkv::cuda::impl::decode
