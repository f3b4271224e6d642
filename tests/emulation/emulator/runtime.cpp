#include "emulator/runtime.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct CUstream_st {
  bool capturing = false;
  CUgraph_st captured;
};

namespace {

constexpr int kCapability = 90;
constexpr std::size_t kPlainShared = 48 * 1024;
constexpr std::size_t kMostShared = 227 * 1024;
/// Of devices 0 and 1.
constexpr int kMultiprocessors[] = {8, 132};
constexpr int kGarbage = 0xff;  // NaN in every float format

thread_local cudaError_t last_error = cudaSuccess;
/// PAGEDKV_EMULATED_DEVICE says which one a thread starts with.
thread_local int current_device = [] {
  const char* text = std::getenv("PAGEDKV_EMULATED_DEVICE");
  return text != nullptr && std::string_view(text) == "1" ? 1 : 0;
}();

std::mutex mutex;  // of what follows
std::map<const char*, std::size_t> allocations;
std::map<const void*, std::size_t> allowed_shared;
std::optional<emulation::Order> chosen_order;

cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

/// Bytes from p to the end of its allocation, or nothing if it lies in none.
std::optional<std::size_t> room_at(const void* p) {
  const std::lock_guard lock(mutex);
  const auto* at = static_cast<const char*>(p);
  auto next = allocations.upper_bound(at);
  if (next == allocations.begin()) return {};
  --next;
  const auto offset = static_cast<std::size_t>(at - next->first);
  if (offset >= next->second) return {};
  return next->second - offset;
}

/// Whether the range is device memory, or memory of the host that is there.
bool accessible(const void* p, std::size_t bytes) {
  if (bytes == 0) return true;
  if (const auto room = room_at(p)) return bytes <= *room;
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(p) / page * page;
  const std::uintptr_t last = reinterpret_cast<std::uintptr_t>(p) + bytes;
  std::vector<unsigned char> resident((last - first + page - 1) / page);
  return mincore(reinterpret_cast<void*>(first), last - first, resident.data()) == 0;
}

/// Does `work` now, or with the graph that the stream is captured into.
cudaError_t submit(cudaStream_t stream, std::function<void()> work) {
  if (stream != nullptr && stream->capturing) {
    stream->captured.work.push_back(std::move(work));
  } else {
    work();
  }
  return cudaSuccess;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
  }
  return "unknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  return cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() {
  return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = static_cast<int>(std::size(kMultiprocessors));
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= static_cast<int>(std::size(kMultiprocessors))) return result(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= static_cast<int>(std::size(kMultiprocessors))) return result(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors[device];
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = 50 * 1024 * 1024;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = kCapability / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = kCapability % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(kMostShared + 1024);
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(kMostShared);
      return cudaSuccess;
  }
  return result(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  // Of exactly this size, so that AddressSanitizer sees accesses behind it.
  if (posix_memalign(p, 256, bytes) != 0) return result(cudaErrorMemoryAllocation);
  std::memset(*p, kGarbage, bytes);
  const std::lock_guard lock(mutex);
  allocations[static_cast<const char*>(*p)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  {
    const std::lock_guard lock(mutex);
    if (allocations.erase(static_cast<const char*>(p)) == 0) return result(cudaErrorInvalidValue);
  }
  std::free(p);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (!accessible(to, bytes) || !accessible(from, bytes) || (bytes > 0 && to_device && !room_at(to)) ||
      (bytes > 0 && from_device && !room_at(from))) {
    return result(cudaErrorInvalidValue);
  }
  return submit(stream, [=] {
    if (bytes > 0) std::memmove(to, from, bytes);
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}

cudaError_t cudaMemset(void* p, int value, std::size_t bytes) {
  const auto room = room_at(p);
  if (bytes > 0 && (!room || *room < bytes)) return result(cudaErrorInvalidValue);
  std::memset(p, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  const bool device = room_at(p).has_value();
  *attributes = {device ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered, 0, device ? const_cast<void*>(p) : nullptr,
                 device ? nullptr : const_cast<void*>(p)};
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  *stream = new CUstream_st;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream != nullptr && stream->capturing ? result(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->capturing) return result(cudaErrorInvalidValue);
  stream->capturing = true;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (stream == nullptr || !stream->capturing) return result(cudaErrorInvalidValue);
  stream->capturing = false;
  *graph = new CUgraph_st(std::exchange(stream->captured, {}));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream != nullptr && stream->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  for (const auto& work : executable->work) work();
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->ptxVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<std::size_t>(value) > kMostShared) return result(cudaErrorInvalidValue);
  const std::lock_guard lock(mutex);
  allowed_shared[kernel] = static_cast<std::size_t>(value);
  return cudaSuccess;
}

namespace emulation {

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> function) {
  const dim3& g = config.gridDim;
  const dim3& b = config.blockDim;
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    return result(cudaErrorInvalidConfiguration);
  }
  const std::uint64_t threads = std::uint64_t{b.x} * b.y * b.z;
  if (threads == 0 || threads > 1024 || b.z > 64) return result(cudaErrorInvalidConfiguration);
  Launch l{g, b, config.dynamicSmemBytes, kPlainShared, kernel, std::move(function)};
  {
    const std::lock_guard lock(mutex);
    const auto allowed = allowed_shared.find(kernel);
    if (allowed != allowed_shared.end() && l.shared <= allowed->second) l.most_shared = kMostShared;
  }
  if (l.shared > l.most_shared) return result(cudaErrorInvalidValue);
  return submit(config.stream, [l = std::move(l)] { run(l, order()); });
}

void set_order(Order order) {
  const std::lock_guard lock(mutex);
  chosen_order = order;
}

Order order() {
  const std::lock_guard lock(mutex);
  if (!chosen_order) {
    const char* text = std::getenv("PAGEDKV_EMULATED_ORDER");
    const std::string value = text != nullptr ? text : "forward";
    if (value == "forward") {
      chosen_order = Order{Order::Kind::forward, 0};
    } else if (value == "backward") {
      chosen_order = Order{Order::Kind::backward, 0};
    } else {
      chosen_order = Order{Order::Kind::random, std::stoull(value)};
    }
  }
  return *chosen_order;
}

}  // namespace emulation
