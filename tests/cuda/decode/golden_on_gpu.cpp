#include <string>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/device_ops.h"
#include "golden/decode_backend.h"
#include "pagedkv/cuda.h"

namespace golden {

using support::DeviceBuffer;

/// For packed q and o of one new token per sequence, as the recordings have them.
void run_decode(const pagedkv::DecodeArgs& host, const char* slab) {
  const auto batch = static_cast<std::size_t>(host.batch);
  const std::size_t rows = batch * static_cast<std::size_t>(host.q_heads);
  const std::size_t bytes = rows * static_cast<std::size_t>(host.layout.head_dim) * 2;
  const auto blocks = static_cast<std::size_t>(host.table.cu_blocks[batch]);
  const DeviceBuffer device_slab(slab, blocks * static_cast<std::size_t>(host.layout.block_bytes));
  std::vector<char*> addresses;
  for (std::size_t i = 0; i < blocks; ++i) addresses.push_back(device_slab.data() + (host.table.pointers[i] - slab));
  const DeviceBuffer pointers = support::to_device(addresses);
  const DeviceBuffer cu_blocks(host.table.cu_blocks, (batch + 1) * sizeof(std::int32_t));
  const DeviceBuffer cu_q(host.cu_q, (batch + 1) * sizeof(std::int32_t));
  const DeviceBuffer cu_k(host.cu_k, (batch + 1) * sizeof(std::int32_t));
  const DeviceBuffer q(host.q, bytes);
  const DeviceBuffer o(host.o, bytes);
  pagedkv::DecodeArgs a = host;
  a.table.pointers = pointers.as<char*>();
  a.table.cu_blocks = cu_blocks.as<std::int32_t>();
  a.cu_q = cu_q.as<std::int32_t>();
  a.cu_k = cu_k.as<std::int32_t>();
  a.q = q.data();
  a.o = o.data();
  const DeviceBuffer workspace(pagedkv::cuda::decode_workspace_bytes(a));
  pagedkv::cuda::decode(a, {workspace.data(), workspace.bytes()}, nullptr);
  o.get(host.o);
}

double probability_error() {
  return 0x1p-11;  // rounded to f16
}

std::string why_not_run() {
  return support::why_no_device();
}

}  // namespace golden
