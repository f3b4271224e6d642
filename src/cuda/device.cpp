#include "cuda/device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "cuda/check.h"
#include "pagedkv/error.h"

namespace pagedkv::cuda {
namespace {

constexpr int kMaxDevices = 128;
/// Dynamic shared memory that needs no attribute: 48 KiB are allowed in all, and kernels have some static memory too.
constexpr std::size_t kPlainShared = 40 * 1024;

struct Slot {
  std::once_flag once;
  Device device;
};

int attribute(cudaDeviceAttr what, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, what, device), "cudaDeviceGetAttribute");
  return value;
}

Device read_device(int id) {
  Device d;
  d.id = id;
  const int capability =
      10 * attribute(cudaDevAttrComputeCapabilityMajor, id) + attribute(cudaDevAttrComputeCapabilityMinor, id);
  d.arch = std::min(capability, compiled_arch());
  d.multiprocessors = attribute(cudaDevAttrMultiProcessorCount, id);
  d.shared_per_block = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, id));
  d.shared_per_multiprocessor = static_cast<std::size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, id));
  d.l2_bytes = static_cast<std::size_t>(attribute(cudaDevAttrL2CacheSize, id));
  return d;
}

}  // namespace

const Device& current_device() {
  static std::array<Slot, kMaxDevices> slots;
  int id = 0;
  check(cudaGetDevice(&id), "cudaGetDevice");
  if (id >= kMaxDevices) {
    throw Error(ErrorCode::unsupported, "device", std::to_string(id), "0 .. " + std::to_string(kMaxDevices - 1));
  }
  Slot& slot = slots[static_cast<std::size_t>(id)];
  std::call_once(slot.once, [&] { slot.device = read_device(id); });
  return slot.device;
}

void allow_dynamic_shared(const void* kernel, std::size_t bytes) {
  if (bytes <= kPlainShared) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)");
}

}  // namespace pagedkv::cuda
