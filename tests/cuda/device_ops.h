#pragma once
// The CUDA operations over host memory: what the arguments point to is copied to the device, the operation runs, and
// what it may have written is copied back. So everything that tests the CPU backend can test this one.

#include <cstdint>
#include <string>

#include "pagedkv/cuda.h"
#include "pagedkv/ops.h"

namespace support {

/// How the operation is called.
struct DeviceCall {
  pagedkv::cuda::Validation validation = pagedkv::cuda::Validation::arguments;
  std::int64_t slack = 0;  ///< by how much the stated maximum of tokens exceeds the true one
};

void device_write_kv(const pagedkv::WriteKvArgs& args, DeviceCall call = {});
void device_flatten_kv(const pagedkv::FlattenKvArgs& args, DeviceCall call = {});

/// Runs the operation on the device and on the CPU, each on the same memory before it. Empty if every byte of the
/// blocks (of k and v for flatten_kv) is the same after both, else where they differ first. Leaves the CPU's result.
std::string why_different(const pagedkv::WriteKvArgs& args, DeviceCall call = {});
std::string why_different(const pagedkv::FlattenKvArgs& args, DeviceCall call = {});

/// Whether a test that needs a device can run. If not, it is skipped, or with PAGEDKV_REQUIRE_GPU=1 it fails.
bool have_device();

/// First statement of such a test.
#define PAGEDKV_NEEDS_DEVICE()                                                                      \
  if (!support::have_device()) {                                                                    \
    if (support::device_required()) FAIL() << "PAGEDKV_REQUIRE_GPU=1, but there is no CUDA device"; \
    GTEST_SKIP() << "no CUDA device";                                                               \
  }
bool device_required();

/// The same for tests that skip by a reason: empty if a device is there. Throws std::runtime_error if there is none and
/// one is required.
std::string why_no_device();

}  // namespace support
