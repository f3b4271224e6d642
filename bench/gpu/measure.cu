#include "bench/gpu/measure.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace bench {
namespace {

constexpr int kThreads = 512;

__global__ void fill_kernel(unsigned short* p, std::size_t n, bool bf16, std::uint64_t seed) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += stride) {
    std::uint64_t z = (seed + i) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    // Sign and mantissa at random, the exponent below that of 1 by 0 to 3.
    const unsigned exponent = (bf16 ? 126u : 14u) - static_cast<unsigned>(z >> 62);
    const unsigned mantissa = static_cast<unsigned>(z) & (bf16 ? 0x7fu : 0x3ffu);
    const unsigned sign = static_cast<unsigned>(z >> 40) & 1u;
    p[i] = static_cast<unsigned short>(sign << 15 | exponent << (bf16 ? 7 : 10) | mantissa);
  }
}

/// Every CTA takes one piece of kThreads * kPerThread * 16 bytes.
template <int kPerThread, bool kRead, bool kWrite>
__global__ void __launch_bounds__(kThreads) stream_kernel(const uint4* from, uint4* to, std::size_t n) {
  const std::size_t first = std::size_t{blockIdx.x} * kThreads * kPerThread + threadIdx.x;
  uint4 v[kPerThread] = {};
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const std::size_t at = first + std::size_t{kThreads} * i;
    if (kRead && at < n) v[i] = __ldcs(from + at);
  }
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const std::size_t at = first + std::size_t{kThreads} * i;
    if (!kWrite) {
      // Never true of the data, which the compiler cannot know.
      if ((v[i].x & v[i].y & v[i].z & v[i].w) == 0xffffffffu && at < n) to[at] = v[i];
    } else if (at < n) {
      to[at] = v[i];
    }
  }
}

template <int kPerThread, bool kRead, bool kWrite>
void stream(const uint4* from, uint4* to, std::size_t n, cudaStream_t s) {
  const std::size_t piece = std::size_t{kThreads} * kPerThread;
  stream_kernel<kPerThread, kRead, kWrite>
      <<<static_cast<unsigned>((n + piece - 1) / piece), kThreads, 0, s>>>(from, to, n);
}

__global__ void empty_kernel() {}

void cuda_ok(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

double median_of(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  cuda_ok(cudaMalloc(&data_, bytes));
}
Buffer::Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}
Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
Buffer::~Buffer() {
  cudaFree(data_);
}

void Buffer::set(const void* host) {
  cuda_ok(cudaMemcpy(data_, host, bytes_, cudaMemcpyHostToDevice));
}

void Buffer::fill_random(bool bf16, std::uint64_t seed) {
  fill_kernel<<<4096, 256>>>(as<unsigned short>(), bytes_ / 2, bf16, seed << 40);
  cuda_ok(cudaGetLastError());
}

Timing time_graph(int launches, int replays, const std::function<void(int, cudaStream_t)>& work, double warm_up_ms) {
  cudaStream_t stream = nullptr;
  cuda_ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cuda_ok(cudaDeviceSynchronize());
  cudaGraph_t graph = nullptr;
  cuda_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) work(i, stream);
  cuda_ok(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  cuda_ok(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  cuda_ok(cudaEventCreate(&begin));
  cuda_ok(cudaEventCreate(&end));
  std::vector<double> us;
  double warm_ms = 0;
  int warm = 0;
  while (static_cast<int>(us.size()) < replays) {
    cuda_ok(cudaEventRecord(begin, stream));
    cuda_ok(cudaGraphLaunch(exec, stream));
    cuda_ok(cudaEventRecord(end, stream));
    cuda_ok(cudaEventSynchronize(end));
    float ms = 0;
    cuda_ok(cudaEventElapsedTime(&ms, begin, end));
    if (warm < 2 || warm_ms < warm_up_ms) {
      ++warm;
      warm_ms += static_cast<double>(ms);
    } else {
      us.push_back(1e3 * ms / launches);
    }
  }
  cuda_ok(cudaEventDestroy(begin));
  cuda_ok(cudaEventDestroy(end));
  cuda_ok(cudaGraphExecDestroy(exec));
  cuda_ok(cudaGraphDestroy(graph));
  cuda_ok(cudaStreamDestroy(stream));
  std::sort(us.begin(), us.end());
  return {median_of(us), us[us.size() / 10], us[us.size() - 1 - us.size() / 10]};
}

Bandwidth measure_bandwidth(std::size_t bytes) {
  // Four sets, or as many as take 1 GiB: several times any L2 cache.
  const int sets = std::max<int>(4, static_cast<int>((std::size_t{1} << 30) / bytes));
  std::vector<Buffer> buffers;
  for (int i = 0; i < sets; ++i) {
    buffers.emplace_back(bytes);
    buffers.back().fill_random(false, static_cast<std::uint64_t>(i));
  }
  const auto rate = [&](const std::function<void(uint4*, cudaStream_t)>& work) {
    const Timing t = time_graph(
        2 * sets, 11, [&](int i, cudaStream_t s) { work(buffers[static_cast<std::size_t>(i % sets)].as<uint4>(), s); });
    return static_cast<double>(bytes) / (t.median * 1e-6);
  };
  Bandwidth b;
  b.bytes = bytes;
  const std::size_t n = bytes / 16;
  b.read = std::max({rate([&](uint4* p, cudaStream_t s) { stream<2, true, false>(p, p, n, s); }),
                     rate([&](uint4* p, cudaStream_t s) { stream<4, true, false>(p, p, n, s); }),
                     rate([&](uint4* p, cudaStream_t s) { stream<8, true, false>(p, p, n, s); })});
  b.copy = std::max({rate([&](uint4* p, cudaStream_t s) { stream<1, true, true>(p, p + n / 2, n / 2, s); }),
                     rate([&](uint4* p, cudaStream_t s) { stream<2, true, true>(p, p + n / 2, n / 2, s); }),
                     rate([&](uint4* p, cudaStream_t s) { stream<4, true, true>(p, p + n / 2, n / 2, s); }),
                     rate([&](uint4* p, cudaStream_t s) { stream<8, true, true>(p, p + n / 2, n / 2, s); }),
                     rate([&](uint4* p, cudaStream_t s) {
                       cuda_ok(cudaMemcpyAsync(p + n / 2, p, bytes / 2, cudaMemcpyDeviceToDevice, s));
                     })});
  b.write = std::max({rate([&](uint4* p, cudaStream_t s) { stream<1, false, true>(p, p, n, s); }),
                      rate([&](uint4* p, cudaStream_t s) { stream<4, false, true>(p, p, n, s); })});
  return b;
}

Timing measure_empty_launch() {
  return time_graph(500, 21, [](int, cudaStream_t s) { empty_kernel<<<1, 32, 0, s>>>(); });
}

DeviceInfo device_info() {
  DeviceInfo d;
  cudaDeviceProp p{};
  int id = 0;
  cuda_ok(cudaGetDevice(&id));
  cuda_ok(cudaGetDeviceProperties(&p, id));
  cuda_ok(cudaDriverGetVersion(&d.driver));
  cuda_ok(cudaRuntimeGetVersion(&d.runtime));
  d.name = p.name;
  d.multiprocessors = p.multiProcessorCount;
  d.l2_bytes = static_cast<std::size_t>(p.l2CacheSize);
  return d;
}

}  // namespace bench
