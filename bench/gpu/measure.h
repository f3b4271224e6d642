#pragma once
// Timing of GPU work: CUDA-graph replays over rotated, cold inputs.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pagedkv/cuda.h"

namespace bench {

/// An allocation on the device. Failures of CUDA, here and below, are std::runtime_error.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  /// Fills it with pseudo-random values of f16 (or bf16) between -1 and 1.
  void fill_random(bool bf16, std::uint64_t seed);
  void set(const void* host);
  template <class V = char>
  V* as() const {
    return static_cast<V*>(data_);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

template <class V>
Buffer to_device(const std::vector<V>& values) {
  Buffer b(values.size() * sizeof(V));
  b.set(values.data());
  return b;
}

/// Microseconds of one launch, over the replays of a graph.
struct Timing {
  double median = 0;
  double p10 = 0;
  double p90 = 0;
};

/// Captures `launches` calls of work(i, stream) in a graph, replays it and divides by the launches. Calls that follow
/// each other must use different memory, enough of it to be out of the L2 cache when its turn comes again. The graph is
/// replayed for `warm_up_ms`, and at least twice, before it counts.
Timing time_graph(int launches, int replays, const std::function<void(int, pagedkv::cuda::Stream)>& work,
                  double warm_up_ms = 0);

/// Bytes per second.
struct Bandwidth {
  std::size_t bytes = 0;  ///< of one launch, read and written
  double read = 0;
  double write = 0;
  double copy = 0;
};

/// Bandwidth of plain kernels that read, write or copy `bytes` in all per launch: the best of several ways to do it,
/// cudaMemcpyAsync among them.
Bandwidth measure_bandwidth(std::size_t bytes);

/// A kernel that does nothing.
Timing measure_empty_launch();

struct DeviceInfo {
  std::string name;
  int driver = 0;  ///< highest CUDA version that the driver supports, as 13000
  int runtime = 0;
  int multiprocessors = 0;
  std::size_t l2_bytes = 0;
};
DeviceInfo device_info();

}  // namespace bench
