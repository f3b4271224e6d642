// The arithmetic behind the cache bytes on the device: the hashes that every other machine has.

#include <gtest/gtest.h>

#include <cstdint>

#include "cuda/device_memory.h"
#include "cuda/device_ops.h"
#include "cuda/launch.h"
#include "pagedkv/core/check_tables.h"

namespace {

__global__ void hash_kernel(pagedkv::core::CheckId id, std::uint64_t inputs, unsigned long long* sum) {
  const std::uint64_t stride = std::uint64_t{gridDim.x} * blockDim.x;
  unsigned long long share = 0;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < inputs; i += stride) {
    share += pagedkv::core::check_share(i, pagedkv::core::check_result(id, i));
  }
  for (int d = 16; d > 0; d /= 2) share += __shfl_xor_sync(0xffffffffu, share, d);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, share);
}

TEST(CudaSelfCheck, EveryInputOfEveryTable) {
  PAGEDKV_NEEDS_DEVICE();
  for (const pagedkv::core::CheckTable& table : pagedkv::core::kCheckTables) {
    unsigned long long sum = 0;
    const support::DeviceBuffer device(&sum, sizeof(sum));
    support::launch(&hash_kernel, {dim3(4096), 256}, table.id, table.inputs, device.as<unsigned long long>());
    device.get(&sum);
    EXPECT_EQ(sum, table.hash) << table.name;
  }
}

}  // namespace
