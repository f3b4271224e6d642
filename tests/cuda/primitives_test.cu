// What kernels are made of: each instruction of ptx/, each exchange between the lanes of a warp, alone.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "cuda/decode/arrival.cuh"
#include "cuda/device_memory.h"
#include "cuda/device_ops.h"
#include "cuda/launch.h"
#include "cuda/ptx/arithmetic.cuh"
#include "cuda/ptx/async_copy.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/mbarrier.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/relaxed_load.cuh"
#include "cuda/ptx/shared_memory.cuh"
#include "pagedkv/core/half.h"
#include "pagedkv/core/quant.h"

namespace {

namespace decode = pagedkv::cuda::impl::decode;
namespace ptx = pagedkv::cuda::ptx;
using pagedkv::bfloat16_t;
using pagedkv::half_t;
using support::DeviceBuffer;

constexpr unsigned kAll = 0xffffffffu;

/// Runs a kernel of one warp that fills `count` values.
template <class V, class... Params, class... Args>
std::vector<V> results(std::size_t count, void (*kernel)(V*, Params...), const Args&... args) {
  std::vector<V> values(count);
  const DeviceBuffer out(count * sizeof(V));
  support::launch(kernel, {dim3(1), 32}, out.as<V>(), args...);
  out.get(values.data());
  return values;
}

__global__ void exchange_kernel(unsigned* out) {
  const unsigned lane = threadIdx.x;
  out[lane] = __shfl_sync(kAll, lane, static_cast<int>(3 * lane));
  out[32 + lane] = __shfl_up_sync(kAll, lane, 3);
  out[64 + lane] = __shfl_xor_sync(kAll, lane, 5);
  const std::int64_t wide = std::int64_t{1} << (lane + 16);
  out[96 + lane] = static_cast<unsigned>(__shfl_sync(kAll, wide, 9) >> 20);
  out[128 + lane] = __ballot_sync(kAll, lane % 3 == 0);
  out[160 + lane] = (__any_sync(kAll, lane == 31) ? 1u : 0u) + (__any_sync(kAll, lane == 32) ? 2u : 0u) +
                    (__all_sync(kAll, lane < 32) ? 4u : 0u) + (__all_sync(kAll, lane < 31) ? 8u : 0u);
  // Each half of the warp on its own.
  const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
  if (lane < 16) {
    out[192 + lane] = __ballot_sync(half, lane % 2 == 0);
  } else {
    out[192 + lane] = __shfl_xor_sync(half, lane, 15);
  }
}

TEST(Primitives, ExchangesBetweenLanes) {
  PAGEDKV_NEEDS_DEVICE();
  const std::vector<unsigned> got = results(224, &exchange_kernel);
  for (unsigned l = 0; l < 32; ++l) {
    EXPECT_EQ(got[l], 3 * l % 32);
    EXPECT_EQ(got[32 + l], l < 3 ? l : l - 3);
    EXPECT_EQ(got[64 + l], l ^ 5u);
    EXPECT_EQ(got[96 + l], 32u);
    EXPECT_EQ(got[128 + l], 0x49249249u);
    EXPECT_EQ(got[160 + l], 5u);
    EXPECT_EQ(got[192 + l], l < 16 ? 0x5555u : l ^ 15u);
  }
}

__global__ void barrier_kernel(int* out) {
  __shared__ int seen[96];
  ptx::in_shared(seen);
  const int i = static_cast<int>(threadIdx.x);
  int value = i;
  for (int round = 0; round < 3; ++round) {
    seen[i] = value;
    __syncthreads();
    value = seen[(i + 37) % 96] + 1;
    __syncthreads();
  }
  out[blockIdx.x * 96 + i] = value;
  out[2 * 96 + blockIdx.x * 96 + i] = __syncthreads_count(i % 5 == 0);
}

TEST(Primitives, Barriers) {
  PAGEDKV_NEEDS_DEVICE();
  std::vector<int> got(4 * 96);
  const DeviceBuffer out(got.size() * sizeof(int));
  support::launch(&barrier_kernel, {dim3(2), 96}, out.as<int>());
  out.get(got.data());
  for (int i = 0; i < 2 * 96; ++i) {
    EXPECT_EQ(got[static_cast<std::size_t>(i)], (i % 96 + 3 * 37) % 96 + 3);
    EXPECT_EQ(got[static_cast<std::size_t>(2 * 96 + i)], 20);
  }
}

/// Warp 1 looks at a barrier until two threads of warp 0 have arrived, and each warp at one of its own until its copies
/// have landed.
__global__ void polling_kernel(std::uint32_t* out, const std::uint32_t* from) {
  PAGEDKV_DYNAMIC_SHARED(__align__(16) char, shared);
  const auto tid = threadIdx.x;
  const std::uint32_t arrived = ptx::shared_address(shared);
  const std::uint32_t landed = ptx::shared_address(shared + 8 + tid / 32 * 8);
  auto* const told = reinterpret_cast<volatile std::uint32_t*>(shared + 24);
  auto* const copy = reinterpret_cast<std::uint32_t*>(shared + 32) + tid * 4;
  if (tid == 0) ptx::init_barrier(arrived, 2);
  if (tid % 32 == 0) ptx::init_barrier(landed, 32);
  __syncthreads();
  if (tid < 2) {
    *told = 42;
    ptx::arrive_at(arrived);
  } else if (tid >= 32) {
    while (!ptx::phase_has_ended(arrived, 0)) {
    }
    out[tid - 32] = *told;
  }
  for (std::uint32_t parity = 0; parity < 2; ++parity) {
    ptx::copy_async_16(ptx::shared_address(copy), from + (parity * 64 + tid) * 4);
    ptx::arrive_after_copies(landed);
    while (!ptx::phase_has_ended(landed, parity)) {
    }
    out[32 + parity * 64 + tid] = copy[tid % 4];
  }
}

TEST(Primitives, BarriersThatAreLookedAt) {
  PAGEDKV_NEEDS_DEVICE();
  std::vector<std::uint32_t> from(2 * 64 * 4);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::uint32_t>(i);
  const DeviceBuffer in = support::to_device(from);
  std::vector<std::uint32_t> got(32 + 2 * 64);
  const DeviceBuffer out(got.size() * 4);
  support::launch(&polling_kernel, {dim3(1), 64, 32 + 64 * 16}, out.as<std::uint32_t>(), in.as<const std::uint32_t>());
  out.get(got.data());
  for (std::size_t i = 0; i < 32; ++i) EXPECT_EQ(got[i], 42u);
  for (std::size_t i = 0; i < 2 * 64; ++i) EXPECT_EQ(got[32 + i], i * 4 + i % 4);
}

/// a [16][16], b [16][8] as words of two elements next to each other in k, and c [16][8].
template <class T>
__global__ void mma_kernel(float* d, const std::uint16_t* a, const std::uint16_t* b, const float* c) {
  const int g = static_cast<int>(threadIdx.x) / 4;
  const int t = static_cast<int>(threadIdx.x) % 4 * 2;
  const auto pair_a = [&](int row, int k) { return std::uint32_t{a[row * 16 + k + 1]} << 16 | a[row * 16 + k]; };
  const auto pair_b = [&](int k) { return std::uint32_t{b[(k + 1) * 8 + g]} << 16 | b[k * 8 + g]; };
  const std::uint32_t fa[4] = {pair_a(g, t), pair_a(g + 8, t), pair_a(g, t + 8), pair_a(g + 8, t + 8)};
  const std::uint32_t fb[2] = {pair_b(t), pair_b(t + 8)};
  float f[4];
  for (int i = 0; i < 4; ++i) f[i] = c[(g + i / 2 * 8) * 8 + t + i % 2];
  if constexpr (std::is_same_v<T, half_t>) {
    ptx::mma_f16(f, fa, fb, f);
  } else {
    ptx::mma_bf16(f, fa, fb, f);
  }
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * 8 + t + i % 2] = f[i];
}

/// @param codes whether a is codes as they are stored: subnormal f16
template <class T>
void check_mma(bool codes = false) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const auto draw = [&](std::size_t n) {
    std::vector<std::uint16_t> x(n);
    for (auto& v : x) v = pagedkv::core::from_float<T>(normal(random)).bits;
    return x;
  };
  const auto value = [](std::uint16_t bits) { return static_cast<double>(pagedkv::core::to_float(T{bits})); };
  std::vector<std::uint16_t> a = draw(256);
  const std::vector<std::uint16_t> b = draw(128);
  std::vector<float> c(128);
  if (codes) {
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<std::uint16_t>(i);
  } else {
    for (float& x : c) x = normal(random);
  }
  const DeviceBuffer da = support::to_device(a);
  const DeviceBuffer db = support::to_device(b);
  const DeviceBuffer dc = support::to_device(c);
  const std::vector<float> d =
      results(128, &mma_kernel<T>, da.as<const std::uint16_t>(), db.as<const std::uint16_t>(), dc.as<const float>());
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j < 8; ++j) {
      double sum = static_cast<double>(c[i * 8 + j]);
      double size = std::abs(sum);
      for (std::size_t k = 0; k < 16; ++k) {
        const double factor = value(a[i * 16 + k]);
        sum += factor * value(b[k * 8 + j]);
        // What is added is aligned by its exponent, and that of a subnormal is the least one.
        size += std::max(std::abs(factor), codes ? 0x1p-14 : 0.0) * std::abs(value(b[k * 8 + j]));
      }
      EXPECT_NEAR(static_cast<double>(d[i * 8 + j]), sum, size * 0x1p-22) << i << " " << j;
    }
  }
}

TEST(Primitives, Mma) {
  PAGEDKV_NEEDS_DEVICE();
  check_mma<half_t>();
  check_mma<half_t>(true);
  check_mma<bfloat16_t>();
}

/// Four matrices whose elements say where they are: 1000 matrix + 10 row + column.
__global__ void ldmatrix_kernel(std::uint32_t* out) {
  PAGEDKV_DYNAMIC_SHARED(uint4, dynamic);
  auto* rows = reinterpret_cast<std::uint16_t*>(dynamic);
  const int lane = static_cast<int>(threadIdx.x);
  for (int j = 0; j < 8; ++j) rows[lane * 8 + j] = static_cast<std::uint16_t>(1000 * (lane / 8) + 10 * (lane % 8) + j);
  __syncwarp();
  std::uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::shared_address(rows + lane * 8));
  for (int m = 0; m < 4; ++m) out[m * 32 + lane] = r[m];
  ptx::ldmatrix_x4_trans(r, ptx::shared_address(rows + lane * 8));
  for (int m = 0; m < 4; ++m) out[128 + m * 32 + lane] = r[m];
  const std::uint32_t row_major = static_cast<std::uint32_t>(10 * (lane / 4) + lane % 4 * 2);
  out[256 + lane] = ptx::movmatrix((row_major + 1) << 16 | row_major);
}

TEST(Primitives, MatrixLoads) {
  PAGEDKV_NEEDS_DEVICE();
  std::vector<std::uint32_t> got(288);
  const DeviceBuffer out(got.size() * 4);
  support::launch(&ldmatrix_kernel, {dim3(1), 32, 512}, out.as<std::uint32_t>());
  out.get(got.data());
  for (std::uint32_t lane = 0; lane < 32; ++lane) {
    const std::uint32_t row = lane / 4;
    const std::uint32_t column = lane % 4 * 2;
    const auto both = [](std::uint32_t low, std::uint32_t high) { return high << 16 | low; };
    for (std::uint32_t m = 0; m < 4; ++m) {
      const std::uint32_t at = 1000 * m + 10 * row + column;
      EXPECT_EQ(got[m * 32 + lane], both(at, at + 1));
      const std::uint32_t across = 1000 * m + 10 * column + row;
      EXPECT_EQ(got[128 + m * 32 + lane], both(across, across + 10));
    }
    EXPECT_EQ(got[256 + lane], both(10 * column + row, 10 * column + 10 + row));
  }
}

__global__ void policies_kernel(std::uint64_t* out) {
  out[0] = ptx::evict_first_policy();
  out[1] = ptx::create_evict_first_policy();
}

TEST(Primitives, ThePolicyIsTheDevices) {
  PAGEDKV_NEEDS_DEVICE();
  std::uint64_t got[2] = {1, 2};
  const DeviceBuffer out(sizeof got);
  support::launch(&policies_kernel, {dim3(1), 1}, out.as<std::uint64_t>());
  out.get(got);
  EXPECT_EQ(got[0], got[1]);
}

/// Copies three groups of which the last is 5 bytes per lane and zeros, and reads each after its wait.
// Copies with a policy are left to decode's tests: in a kernel as small as this nvcc 13.0 makes an instruction of them
// that an H200 refuses as illegal.
__global__ void copy_kernel(unsigned char* out, const unsigned char* from) {
  PAGEDKV_DYNAMIC_SHARED(uint4, dynamic);
  auto* to = reinterpret_cast<unsigned char*>(dynamic);
  const int lane = static_cast<int>(threadIdx.x);
  const auto place = [&](int at) { return ptx::shared_address(to + at); };
  ptx::copy_async_16(place(lane * 16), from + lane * 16);
  ptx::commit_copies();
  ptx::copy_async_small<4>(place(512 + lane * 4), from + 512 + lane * 4);
  ptx::commit_copies();
  ptx::copy_async_small<8>(place(640 + lane * 8), from + 640 + lane * 8);
  ptx::commit_copies();
  ptx::wait_copies<2>();
  __syncwarp();
  for (int i = 0; i < 16; ++i) out[lane * 16 + i] = to[(lane ^ 1) * 16 + i];
  ptx::wait_copies<0>();
  __syncwarp();
  for (int i = 0; i < 12; ++i) out[512 + lane * 12 + i] = to[512 + lane * 12 + i];
}

TEST(Primitives, AsynchronousCopies) {
  PAGEDKV_NEEDS_DEVICE();
  std::vector<unsigned char> from(896);
  for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<unsigned char>(i * 7 + i / 256);
  const DeviceBuffer source = support::to_device(from);
  std::vector<unsigned char> got(from.size());
  const DeviceBuffer out(got.size());
  support::launch(&copy_kernel, {dim3(1), 32, 896}, out.as<unsigned char>(), source.as<const unsigned char>());
  out.get(got.data());
  for (std::size_t i = 0; i < 512; ++i) EXPECT_EQ(got[i], from[i ^ 16]) << i;
  for (std::size_t i = 512; i < from.size(); ++i) EXPECT_EQ(got[i], from[i]) << i;
}

template <class T>
__global__ void pairs_kernel(std::uint32_t* out, const float* x) {
  const int lane = static_cast<int>(threadIdx.x);
  const std::uint32_t a = ptx::pack<T>(x[2 * lane], x[2 * lane + 1]);
  const std::uint32_t b = ptx::pack<T>(x[2 * lane + 1], x[2 * lane]);
  out[lane] = a;
  out[32 + lane] = __float_as_uint(ptx::unpack<T>(a).y);
  out[64 + lane] = ptx::min_nan_pair<T>(a, b);
  out[96 + lane] = ptx::max_nan_pair<T>(a, b);
  const std::uint32_t codes = static_cast<std::uint32_t>(8 * lane) << 16 | static_cast<std::uint32_t>(lane);
  out[128 + lane] = ptx::codes_to_t<T>(codes);
  out[160 + lane] = ptx::decode_pair<T>(codes, ptx::pack<T>(0.37F, -1.5F), ptx::pack<T>(1e-3F, 3.0F));
  out[192 + lane] = __byte_perm(0x33221100u, 0x77665544u, 0x4153u + static_cast<unsigned>(lane));
}

template <class T>
void check_pairs() {
  using pagedkv::core::from_float;
  using pagedkv::core::to_float;
  std::vector<float> x(64);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = std::ldexp(1.2345F, static_cast<int>(i) - 30) * (i % 3 == 0 ? -1 : 1);
  x[4] = std::numeric_limits<float>::quiet_NaN();
  x[6] = -0.0F;
  x[7] = 0.0F;
  x[9] = std::numeric_limits<float>::infinity();
  const DeviceBuffer in = support::to_device(x);
  const std::vector<std::uint32_t> got = results(224, &pairs_kernel<T>, in.as<const float>());
  const auto join = [](T low, T high) { return std::uint32_t{high.bits} << 16 | low.bits; };
  for (std::size_t l = 0; l < 32; ++l) {
    const T low = from_float<T>(x[2 * l]);
    const T high = from_float<T>(x[2 * l + 1]);
    EXPECT_EQ(got[l], join(low, high)) << l;
    EXPECT_EQ(got[32 + l], std::bit_cast<std::uint32_t>(to_float(high))) << l;
    const T least = from_float<T>(pagedkv::core::min_nan(to_float(low), to_float(high)));
    const T most = from_float<T>(pagedkv::core::max_nan(to_float(low), to_float(high)));
    EXPECT_EQ(got[64 + l], join(least, least)) << l;
    EXPECT_EQ(got[96 + l], join(most, most)) << l;
    const auto code = static_cast<std::uint32_t>(l);
    EXPECT_EQ(got[128 + l], join(from_float<T>(static_cast<float>(code)), from_float<T>(static_cast<float>(8 * code))));
    const pagedkv::core::QuantParam<T> first{from_float<T>(0.37F), from_float<T>(1e-3F)};
    const pagedkv::core::QuantParam<T> second{from_float<T>(-1.5F), from_float<T>(3.0F)};
    EXPECT_EQ(got[160 + l], join(pagedkv::core::decode<T>(code, first), pagedkv::core::decode<T>(8 * code, second)));
    std::uint32_t bytes = 0;
    for (std::uint32_t i = 0; i < 4; ++i) bytes |= ((0x4153u + code) >> (4 * i) & 7u) * 0x11u << (8 * i);
    EXPECT_EQ(got[192 + l], bytes);
  }
}

TEST(Primitives, PairsOfValues) {
  PAGEDKV_NEEDS_DEVICE();
  check_pairs<half_t>();
  check_pairs<bfloat16_t>();
}

__global__ void arithmetic_kernel(float* out, const float* x) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = ptx::exp2_approx(x[lane]);
  out[32 + lane] = __fdividef(x[lane], 3.0F);
  out[64 + lane] = ptx::reciprocal_approx(x[lane]);
}

TEST(Primitives, Approximations) {
  PAGEDKV_NEEDS_DEVICE();
  std::vector<float> x(32);
  for (std::size_t i = 0; i < 30; ++i) x[i] = -0.37F * static_cast<float>(i * i);
  x[30] = -std::numeric_limits<float>::infinity();
  x[31] = 7.25F;
  const DeviceBuffer in = support::to_device(x);
  const std::vector<float> got = results(96, &arithmetic_kernel, in.as<const float>());
  for (std::size_t i = 0; i < 32; ++i) {
    const float want = x[i] < -126.0F ? 0.0F : std::exp2(x[i]);
    EXPECT_NEAR(got[i], want, want * 0x1p-21F) << x[i];
    const float inverse = 1.0F / x[i];
    EXPECT_TRUE(got[64 + i] == inverse || std::abs(got[64 + i] - inverse) <= std::abs(inverse) * 0x1p-23F) << x[i];
    const float third = x[i] / 3.0F;
    EXPECT_TRUE(got[32 + i] == third || std::abs(got[32 + i] - third) <= std::abs(x[i]) * 0x1p-22F) << x[i];
  }
}

__global__ void pack_saturated_kernel(std::uint32_t* out, const std::int32_t* x) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = ptx::pack_saturated(static_cast<std::uint32_t>(x[2 * lane]), static_cast<std::uint32_t>(x[2 * lane + 1]),
                                  0xaabbccddu);
}

TEST(Primitives, PackSaturated) {
  PAGEDKV_NEEDS_DEVICE();
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  std::vector<std::int32_t> x = {0, 255, 256, -1, kMost, -kMost - 1, 1000, 127};
  for (std::int32_t i = 0; i < 56; ++i) x.push_back(37 * i - 900);
  const DeviceBuffer in = support::to_device(x);
  const std::vector<std::uint32_t> got = results(32, &pack_saturated_kernel, in.as<const std::int32_t>());
  const auto byte = [](std::int32_t v) { return static_cast<std::uint32_t>(v < 0 ? 0 : v > 255 ? 255 : v); };
  for (std::size_t l = 0; l < 32; ++l) {
    EXPECT_EQ(got[l], byte(x[2 * l]) | byte(x[2 * l + 1]) << 8 | 0xccdd0000u) << x[2 * l] << " " << x[2 * l + 1];
  }
}

/// Each lane reads a word before and after another lane has changed it.
__global__ void relaxed_kernel(std::int32_t* out, std::int32_t* x) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = ptx::load_relaxed(x + lane);
  __syncwarp();
  x[31 - lane] += 1000;
  __syncwarp();
  out[32 + lane] = ptx::load_relaxed(x + lane);
}

TEST(Primitives, RelaxedLoads) {
  PAGEDKV_NEEDS_DEVICE();
  std::vector<std::int32_t> x(32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::int32_t>(i) * 7 - 50;
  const DeviceBuffer in = support::to_device(x);
  const std::vector<std::int32_t> got = results(64, &relaxed_kernel, in.as<std::int32_t>());
  for (std::size_t l = 0; l < 32; ++l) {
    EXPECT_EQ(got[l], x[l]);
    EXPECT_EQ(got[32 + l], x[l] + 1000);
  }
}

/// Relaxed loads of bytes.
__global__ void relaxed_bytes_kernel(std::int32_t* out, const std::uint8_t* bytes) {
  const auto lane = static_cast<int>(threadIdx.x);
  out[lane] = ptx::load_relaxed(bytes + lane);
}

TEST(Primitives, RelaxedLoadsOfBytes) {
  PAGEDKV_NEEDS_DEVICE();
  std::vector<std::uint8_t> bytes(32);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(250 - 7 * i);
  const DeviceBuffer in = support::to_device(bytes);
  const std::vector<std::int32_t> got = results(32, &relaxed_bytes_kernel, in.as<const std::uint8_t>());
  for (std::size_t l = 0; l < 32; ++l) EXPECT_EQ(got[l], bytes[l]);
}

/// Every CTA writes a value and arrives at all counters, for one or two; the last one at each adds up what all wrote.
__global__ void arrive_kernel(std::uint64_t* counters, int count, unsigned* values, unsigned* sums) {
  if (threadIdx.x == 0) values[blockIdx.x] = blockIdx.x + 1;
  __syncthreads();
  if (threadIdx.x != 0) return;
  const unsigned ctas = gridDim.x;
  for (int c = 0; c < count; ++c) {
    const int weight = 1 + c % 2;
    if (!decode::arrive(counters + c, weight, weight * static_cast<int>(ctas))) continue;
    for (unsigned i = 0; i < ctas; ++i) sums[c] += values[i];
  }
}

TEST(GpuArrival, OneIsTheLastWhateverTheCounterHeld) {
  PAGEDKV_NEEDS_DEVICE();
  constexpr int kCounters = 64;
  constexpr unsigned kCtas = 300;
  std::mt19937_64 random(5);
  std::vector<std::uint64_t> contents(kCounters);
  for (int i = 0; i < kCounters; ++i) {
    contents[static_cast<std::size_t>(i)] = i % 4 == 0 ? 0 : i % 4 == 1 ? ~std::uint64_t{0} : random();
  }
  const DeviceBuffer counters = support::to_device(contents);
  const DeviceBuffer sums = support::to_device(std::vector<unsigned>(kCounters));
  for (unsigned launch = 1; launch <= 3; ++launch) {  // each finds the counters as the one before left them
    const DeviceBuffer values = support::to_device(std::vector<unsigned>(kCtas));
    support::launch(&arrive_kernel, {dim3(kCtas), 32}, counters.as<std::uint64_t>(), kCounters, values.as<unsigned>(),
                    sums.as<unsigned>());
    std::vector<unsigned> got(kCounters);
    sums.get(got.data());
    EXPECT_EQ(got, std::vector<unsigned>(kCounters, launch * kCtas * (kCtas + 1) / 2));
  }
}

}  // namespace
