#pragma once
// Which context-parallel rank owns a position, and where in that rank's cache it lies.

#include <cstdint>

#include "pagedkv/core/fast_divmod.h"
#include "pagedkv/core/hd.h"

namespace pagedkv {

/// Token ownership among context-parallel ranks: runs of `interleave` consecutive positions go round the ranks in turn.
/// With interleave 1, position t belongs to rank t % size at local index t / size.
struct ContextParallel {
  std::int32_t rank = 0;
  std::int32_t size = 1;
  std::int32_t interleave = 1;
};

namespace core {

/// ContextParallel with its divisions prepared. Positions are below 2^31.
struct Ownership {
  std::int32_t rank = 0;
  FastDivmod size{1};
  FastDivmod interleave{1};

  Ownership() = default;
  PAGEDKV_HD_CONSTEXPR explicit Ownership(ContextParallel cp)
      : rank(cp.rank), size(cp.size), interleave(cp.interleave) {}

  /// Local index of position t on this rank, or -1 if another rank owns it.
  PAGEDKV_HD std::int32_t local(std::int32_t t) const {
    std::int32_t run = 0;
    std::int32_t in_run = 0;
    interleave(run, in_run, t);
    std::int32_t round = 0;
    std::int32_t owner = 0;
    size(round, owner, run);
    return owner == rank ? round * interleave.divisor + in_run : -1;
  }

  /// Position of this rank's local index i; the inverse of local().
  PAGEDKV_HD std::int32_t position(std::int32_t i) const {
    std::int32_t round = 0;
    std::int32_t in_run = 0;
    interleave(round, in_run, i);
    return (round * size.divisor + rank) * interleave.divisor + in_run;
  }

  /// How many of the positions [0, n) this rank owns.
  PAGEDKV_HD std::int32_t count(std::int32_t n) const {
    std::int32_t run = 0;
    std::int32_t in_run = 0;
    interleave(run, in_run, n);
    std::int32_t round = 0;
    std::int32_t owner = 0;
    size(round, owner, run);
    const std::int32_t partial = owner > rank ? interleave.divisor : owner == rank ? in_run : 0;
    return round * interleave.divisor + partial;
  }
};

}  // namespace core
}  // namespace pagedkv
