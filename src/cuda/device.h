#pragma once
// What launches need to know of the current device.

#include <cstddef>

namespace pagedkv::cuda {

struct Device {
  int id = 0;
  /// Compute capability, 90 is 9.0, or what the kernels that run on it were compiled for if that is less: kernels
  /// choose by it too, so shared memory and overlapping launches follow it.
  int arch = 0;
  int multiprocessors = 0;
  std::size_t shared_per_block = 0;  ///< most dynamic shared memory a block can be given
  std::size_t shared_per_multiprocessor = 0;
  std::size_t l2_bytes = 0;
};

/// Properties of the calling thread's current device, read once per device.
/// @throws Error (cuda) if there is none.
const Device& current_device();

/// What the kernels that the current device runs were compiled for: 80 for code for sm_80, or made from its PTX.
/// @throws Error (cuda) if there is none for the device
int compiled_arch();

/// Lets `kernel` (a __global__ function) use `bytes` of dynamic shared memory on the current device. Cheap enough for
/// every launch.
void allow_dynamic_shared(const void* kernel, std::size_t bytes);

}  // namespace pagedkv::cuda
