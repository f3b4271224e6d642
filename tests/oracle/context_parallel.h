#pragma once
// Token ownership by dealing positions out one after the other.

#include <vector>

namespace oracle {

/// The positions below n that `rank` of `size` ranks owns, in the order of its local indices: runs of `interleave`
/// positions are dealt to the ranks in turn.
inline std::vector<int> owned_positions(int rank, int size, int interleave, int n) {
  std::vector<int> positions;
  int turn = 0;
  for (int t = 0; t < n; ++t) {
    if (t > 0 && t % interleave == 0) turn = turn + 1 == size ? 0 : turn + 1;
    if (turn == rank) positions.push_back(t);
  }
  return positions;
}

}  // namespace oracle
