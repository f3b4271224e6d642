#pragma once
// Device memory for tests.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace support {

inline void cuda_ok(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

/// An allocation of its own, so that a memory checker sees accesses beyond it.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t bytes) : bytes_(bytes) { cuda_ok(cudaMalloc(&data_, bytes == 0 ? 1 : bytes)); }
  DeviceBuffer(const void* host, std::size_t bytes) : DeviceBuffer(bytes) { set(host); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~DeviceBuffer() { cudaFree(data_); }

  void set(const void* host) { cuda_ok(cudaMemcpy(data_, host, bytes_, cudaMemcpyHostToDevice)); }
  void get(void* host) const { cuda_ok(cudaMemcpy(host, data_, bytes_, cudaMemcpyDeviceToHost)); }
  char* data() const { return static_cast<char*>(data_); }
  std::size_t bytes() const { return bytes_; }

  template <class V>
  V* as() const {
    return static_cast<V*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

template <class V>
DeviceBuffer to_device(const std::vector<V>& values) {
  return {values.data(), values.size() * sizeof(V)};
}

}  // namespace support
