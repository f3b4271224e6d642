#pragma once
// What the machine can do at most, measured in the same run as the work that is compared with it.

#include <cstddef>
#include <vector>

namespace bench {

/// Reads memory with several threads at once.
class ReadBandwidth {
 public:
  /// @param bytes  much more than the caches hold
  ReadBandwidth(int threads, std::size_t bytes);

  /// One pass over the memory; bytes per second.
  double measure();

 private:
  int threads_;
  std::vector<char> memory_;
};

/// Float32 multiply-adds that several threads do at once, in the widest vectors of the machine; FLOP per second (a
/// multiply-add is 2). Takes about `seconds`.
double fma_rate(int threads, double seconds);

}  // namespace bench
