// The emulated device itself: what it does about kernels and calls that are wrong.

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/launch.h"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/shared_memory.cuh"
#include "emulator/cta.h"
#include "emulator/runtime.h"

namespace pagedkv_emulator_test {  // not anonymous: reports can name only kernels with external linkage

namespace ptx = pagedkv::cuda::ptx;
using emulation::Order;
using support::cuda_ok;
using support::DeviceBuffer;

constexpr unsigned kAll = 0xffffffffu;
constexpr Order kOrders[] = {{Order::Kind::forward, 0}, {Order::Kind::backward, 0}, {Order::Kind::random, 3}};

/// Takes an order for the rest of a test.
class WithOrder {
 public:
  explicit WithOrder(Order order) : before_(emulation::order()) { emulation::set_order(order); }
  ~WithOrder() { emulation::set_order(before_); }
  WithOrder(const WithOrder&) = delete;
  WithOrder& operator=(const WithOrder&) = delete;

 private:
  Order before_;
};

/// The report of a kernel that is wrong, in every order the same kind of report.
template <class... Params, class... Args>
void expect_report(const std::vector<std::string>& words, void (*kernel)(Params...), const support::LaunchShape& shape,
                   const Args&... args) {
  for (const Order order : kOrders) {
    const WithOrder with(order);
    try {
      support::launch(kernel, shape, args...);
      ADD_FAILURE() << "no error: " << words.front();
    } catch (const emulation::KernelError& e) {
      for (const std::string& word : words) EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
    }
  }
}

__global__ void half_of_a_warp_ends() {
  if (blockIdx.x == 2 && threadIdx.x % 32 < 16) return;
  __syncwarp();
}
__global__ void half_of_a_cta_ends() {
  if (threadIdx.x < 32) return;
  __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void barrier_against_shuffle(int* out) {
  if (threadIdx.x == 5) {
    __syncthreads();
  } else {
    *out = __shfl_sync(kAll, 1, 0);
  }
}
__global__ void two_operations(int* out) {
  if (threadIdx.x < 16) {
    *out = __shfl_sync(kAll, 1, 0);
  } else {
    *out = static_cast<int>(__ballot_sync(kAll, true));
  }
}
__global__ void two_masks() {
  __syncwarp(threadIdx.x < 16 ? 0xffffu : kAll);
}
__global__ void mask_without_itself() {
  __syncwarp(0xfffffffeu);
}
__global__ void shuffle_from_outside(int* out) {
  if (threadIdx.x < 16) *out = __shfl_sync(0xffffu, 1, 20);
}
__global__ void divergent_mma(float* out) {
  const std::uint32_t a[4] = {};
  const std::uint32_t b[2] = {};
  float d[4] = {};
  if (threadIdx.x < 8) {
    ptx::mma_f16(d, a, b, d);
  } else {
    ptx::mma_f16(d, a, b, d);
  }
  *out = d[0];
}

__global__ void nobody_arrives() {
  PAGEDKV_DYNAMIC_SHARED(std::uint64_t, barrier);
  const std::uint32_t at = ptx::shared_address(barrier);
  if (threadIdx.x == 0) ptx::init_barrier(at, 2);
  __syncthreads();
  if (threadIdx.x == 32) ptx::arrive_at(at);
  while (!ptx::phase_has_ended(at, 0)) {
  }
}

TEST(Emulator, ReportsDivergence) {
  const DeviceBuffer out(4);
  expect_report({"ended", "half_of_a_warp_ends", "CTA (2, 0, 0)", "warp 0, lanes", "__syncwarp of mask ffffffff at",
                 "emulator_test.cu:"},
                &half_of_a_warp_ends, {dim3(4), 64});
  expect_report({"__syncthreads", "warp 1", "ended"}, &half_of_a_cta_ends, {dim3(1), 64});
  expect_report({"different __syncthreads", "warp 0", "warp 1"}, &two_barriers, {dim3(1), 64});
  expect_report({"__syncthreads", "00000020"}, &barrier_against_shuffle, {dim3(1), 32}, out.as<int>());
  expect_report({"different operations", "__shfl_sync", "__ballot_sync"}, &two_operations, {dim3(1), 32},
                out.as<int>());
  expect_report({"__syncwarp"}, &two_masks, {dim3(1), 32});
  expect_report({"leaves it out"}, &mask_without_itself, {dim3(1), 32});
  expect_report({"reads a lane"}, &shuffle_from_outside, {dim3(1), 32}, out.as<int>());
  expect_report({"for ever", "nobody_arrives"}, &nobody_arrives, {dim3(1), 64, 1024});
  expect_report({"different places"}, &divergent_mma, {dim3(1), 32}, out.as<float>());
}

/// Groups of 8 lanes meet as often as their number says, and then the warp.
__global__ void groups_and_warp(int* out) {
  const auto lane = static_cast<int>(threadIdx.x);
  int x = lane;
  for (int i = 0; i < lane / 8; ++i) x += __shfl_xor_sync(0xffu << (lane & 24), x, 1 << i);
  __syncwarp();
  out[lane] = __shfl_xor_sync(kAll, x, 31);
}

TEST(Emulator, GroupsOfAWarpMeetOnTheirOwn) {
  std::vector<int> got(32);
  const DeviceBuffer out(got.size() * sizeof(int));
  for (const Order order : kOrders) {
    const WithOrder with(order);
    support::launch(&groups_and_warp, {dim3(1), 32}, out.as<int>());
    out.get(got.data());
    for (int lane = 0; lane < 32; ++lane) {
      const int from = 31 - lane;
      int expected = 0;  // lanes that differ from `from` in the lowest lane / 8 bits
      for (int i = 0; i < 1 << from / 8; ++i) expected += from ^ i;
      EXPECT_EQ(got[static_cast<std::size_t>(lane)], expected) << lane;
    }
  }
}

__global__ void count_kernel(int* out) {
  __syncthreads();
  atomicAdd(out, 1);
}

TEST(Emulator, GoesOnAfterAnError) {
  int count = 0;
  const DeviceBuffer out(&count, sizeof count);
  EXPECT_THROW(support::launch(&half_of_a_cta_ends, {dim3(1), 64}), emulation::KernelError);
  support::launch(&count_kernel, {dim3(3, 2, 2), 1024}, out.as<int>());
  out.get(&count);
  EXPECT_EQ(count, 12 * 1024);
}

/// out[thread] = what the next thread has put into shared memory, over the end of the warp too.
template <bool kBarrier>
__global__ void neighbour(int* out) {
  __shared__ int x[64];
  ptx::in_shared(x);
  const int i = static_cast<int>(threadIdx.x);
  x[i] = i;
  if (kBarrier) __syncthreads();
  out[2 * i] = x[(i + 1) % 64];
  out[2 * i + 1] = x[(i + 63) % 64];
}

TEST(Emulator, AMissingBarrierShows) {
  std::vector<int> got(128);
  const DeviceBuffer out(got.size() * sizeof(int));
  for (const Order order : kOrders) {
    const WithOrder with(order);
    for (const bool barrier : {false, true}) {
      support::launch(barrier ? &neighbour<true> : &neighbour<false>, {dim3(2), 64}, out.as<int>());
      out.get(got.data());
      int wrong = 0;
      for (int i = 0; i < 64; ++i) {
        wrong += got[static_cast<std::size_t>(2 * i)] != (i + 1) % 64 ? 1 : 0;
        wrong += got[static_cast<std::size_t>(2 * i + 1)] != (i + 63) % 64 ? 1 : 0;
      }
      EXPECT_EQ(wrong == 0, barrier) << wrong;
    }
  }
}

/// Reads its own copy, which is of group 0 of 2, after waiting for all but `Left` groups.
template <int Left>
__global__ void early_read(std::uint32_t* out, const std::uint32_t* from) {
  PAGEDKV_DYNAMIC_SHARED(uint4, to);
  const auto lane = static_cast<int>(threadIdx.x);
  for (int group = 0; group < 2; ++group) {
    ptx::copy_async_16(ptx::shared_address(to + group * 32 + lane), from + lane * 4);
    ptx::commit_copies();
  }
  ptx::wait_copies<Left>();
  out[lane] = to[lane].x;
}

TEST(Emulator, CopiesLandWhenTheyAreWaitedFor) {
  const std::vector<std::uint32_t> from(128, 7u);
  const DeviceBuffer source = support::to_device(from);
  std::vector<std::uint32_t> got(32);
  const DeviceBuffer out(got.size() * 4);
  support::launch(&early_read<1>, {dim3(1), 32, 1024}, out.as<std::uint32_t>(), source.as<const std::uint32_t>());
  out.get(got.data());
  EXPECT_EQ(got, std::vector<std::uint32_t>(32, 7u));
  support::launch(&early_read<2>, {dim3(1), 32, 1024}, out.as<std::uint32_t>(), source.as<const std::uint32_t>());
  out.get(got.data());
  EXPECT_EQ(got, std::vector<std::uint32_t>(32, kAll));
}

__global__ void garbage_kernel(std::uint32_t* out) {
  __shared__ std::uint32_t x;
  ptx::in_shared(x);
  PAGEDKV_DYNAMIC_SHARED(std::uint32_t, y);
  out[2 * blockIdx.x] = x;
  out[2 * blockIdx.x + 1] = y[3];
  x = y[3] = 1;
}

TEST(Emulator, NewMemoryIsGarbage) {
  std::vector<std::uint32_t> got(6);
  const DeviceBuffer out(got.size() * 4);
  out.get(got.data());
  EXPECT_EQ(got, std::vector<std::uint32_t>(6, kAll));
  support::launch(&garbage_kernel, {dim3(3), 1, 16}, out.as<std::uint32_t>());
  out.get(got.data());
  EXPECT_EQ(got, std::vector<std::uint32_t>(6, kAll));
}

__global__ void copy_to(std::uint32_t offset, const char* from) {
  ptx::copy_async_16(ptx::shared_address(emulation::dynamic_shared()) + offset, from);
}
__global__ void matrix_from(std::uint32_t offset) {
  std::uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::shared_address(emulation::dynamic_shared()) + offset);
}
__global__ void address_of_a_local() {
  int x = 0;
  ptx::shared_address(&x);
}
__global__ void store_to(char* p) {
  ptx::store_8(p, {1, 2});
}

TEST(Emulator, BadAddressesAreReported) {
  const DeviceBuffer memory(64);
  const char* const from = memory.data();
  support::launch(&copy_to, {dim3(1), 1, 64}, 48u, from);
  expect_report({"outside"}, &copy_to, {dim3(1), 1, 64}, 64u, from);
  expect_report({"not aligned to 16"}, &copy_to, {dim3(1), 1, 64}, 8u, from);
  expect_report({"source", "not aligned"}, &copy_to, {dim3(1), 1, 64}, 0u, from + 4);
  expect_report({"outside"}, &matrix_from, {dim3(1), 32, 512}, 512u);
  expect_report({"not in dynamic shared memory"}, &address_of_a_local, {dim3(1), 1, 64});
  expect_report({"not aligned to 8"}, &store_to, {dim3(1), 1}, memory.data() + 4);
}

__global__ void static_kernel() {
  __shared__ char x[1024];
  ptx::in_shared(x);
}
template <int>
__global__ void empty_kernel() {}

cudaError_t launch_status(const support::LaunchShape& shape, void (*kernel)()) {
  cudaLaunchConfig_t config{};
  config.gridDim = shape.ctas;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared;
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel);
  EXPECT_EQ(cudaGetLastError(), status);
  return status;
}

TEST(Emulator, RefusesLaunchesBeyondTheLimits) {
  constexpr std::size_t kPlain = 48 * 1024;
  constexpr int kMost = 227 * 1024;
  void (*const kernel)() = &empty_kernel<0>;
  EXPECT_EQ(launch_status({dim3(1), 1024, kPlain}, kernel), cudaSuccess);
  EXPECT_EQ(launch_status({dim3(1), 1025}, kernel), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_status({dim3(1), 0}, kernel), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_status({dim3(0), 32}, kernel), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_status({dim3(1, 65536), 32}, kernel), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_status({dim3(1), 32, kPlain + 1}, kernel), cudaErrorInvalidValue);
  const void* const address = reinterpret_cast<const void*>(kernel);
  EXPECT_EQ(cudaFuncSetAttribute(address, cudaFuncAttributeMaxDynamicSharedMemorySize, kMost + 1),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  cuda_ok(cudaFuncSetAttribute(address, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000));
  EXPECT_EQ(launch_status({dim3(1), 32, 100000}, kernel), cudaSuccess);
  EXPECT_EQ(launch_status({dim3(1), 32, 100001}, kernel), cudaErrorInvalidValue);
  EXPECT_EQ(launch_status({dim3(1), 32, 100000}, &empty_kernel<1>), cudaErrorInvalidValue) << "another kernel";
  EXPECT_EQ(launch_status({dim3(1), 32, kPlain - 1024}, &static_kernel), cudaSuccess);
  expect_report({"1024 bytes of static"}, &static_kernel, {dim3(1), 32, kPlain - 1023});
}

TEST(Emulator, MemoryIsChecked) {
  const DeviceBuffer device(100);
  char host[200] = {};
  EXPECT_EQ(cudaMemcpy(host, device.data() + 1, 99, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(host, device.data() + 1, 100, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host + 100, host, 10, cudaMemcpyDeviceToHost), cudaErrorInvalidValue) << "not of the device";
  EXPECT_EQ(cudaMemcpy(host, reinterpret_cast<void*>(std::uintptr_t{4096}), 10, cudaMemcpyDefault),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(device.data(), 0, 101), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(host), cudaErrorInvalidValue);
  cudaPointerAttributes attributes{};
  cuda_ok(cudaPointerGetAttributes(&attributes, device.data() + 99));
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  cuda_ok(cudaPointerGetAttributes(&attributes, device.data() + 100));
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
  cudaGetLastError();
}

}  // namespace pagedkv_emulator_test
