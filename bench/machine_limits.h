#pragma once
// What the machine can do at most, measured in the same run as the work that is compared with it.

#include <cstddef>
#include <span>
#include <vector>

namespace bench {

/// Puts memory out of all caches of the CPU.
void evict(std::span<const std::byte> memory);

/// Moves memory with several threads at once, out of cold caches. Bytes per second.
class MemoryBandwidth {
 public:
  explicit MemoryBandwidth(int threads);

  double read();
  double copy();  ///< counts the bytes read and the bytes written

 private:
  int threads_;
  std::vector<std::byte> from_, to_;
};

/// Float32 multiply-adds that several threads do at once, in the widest vectors of the machine; FLOP per second (a
/// multiply-add is 2). Takes about `seconds`.
double fma_rate(int threads, double seconds);

}  // namespace bench
