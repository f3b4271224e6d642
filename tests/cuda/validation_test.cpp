// Validation::full on arrays and blocks in device memory, graph capture, and addresses beyond 32 bits.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/device_ops.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cuda.h"
#include "pagedkv/error.h"

namespace {

using pagedkv::cuda::Validation;
using support::cuda_ok;
using support::DeviceBuffer;

constexpr int kDim = 64;

/// Two sequences of 20 and 9 tokens, of which 6 and 9 are new, in blocks of 8 on the device.
struct DeviceCase {
  pagedkv::BlockLayout layout;
  std::vector<std::int32_t> cu_q = {0, 6, 15};
  std::vector<std::int32_t> cu_k = {0, 20, 29};
  std::vector<std::int32_t> cu_blocks = {0, 3, 5};
  std::vector<std::int32_t> indices = {4, 0, 3, 1, 5};
  DeviceBuffer slab, k, v, cu_q_device, cu_k_device, cu_blocks_device, indices_device, pointers_device, out;
  pagedkv::WriteKvArgs write;
  pagedkv::FlattenKvArgs flatten;

  DeviceCase() {
    pagedkv::CacheConfig c;
    c.head_dim = kDim;
    c.block_len = 8;
    c.format = {pagedkv::KvType::int8, pagedkv::KvType::int4};
    layout = make_layout(c);
    slab = DeviceBuffer(static_cast<std::size_t>(6 * layout.block_bytes));
    cuda_ok(cudaMemset(slab.data(), 0x5a, slab.bytes()));
    std::vector<std::uint16_t> rows(15 * kDim);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::uint16_t>(0x3000 + i * 37 % 0xc00);
    k = support::to_device(rows);
    v = support::to_device(rows);
    out = DeviceBuffer(2 * 29 * kDim * 2);
  }

  /// Puts the host arrays on the device and points the arguments there.
  void upload() {
    cu_q_device = support::to_device(cu_q);
    cu_k_device = support::to_device(cu_k);
    cu_blocks_device = support::to_device(cu_blocks);
    indices_device = support::to_device(indices);
    pagedkv::BlockTable table;
    table.indices = indices_device.as<std::int32_t>();
    table.slab = slab.data();
    table.slab_blocks = 6;
    table.cu_blocks = cu_blocks_device.as<std::int32_t>();
    write.layout = flatten.layout = layout;
    write.table = flatten.table = table;
    write.batch = flatten.batch = 2;
    write.cu_q = cu_q_device.as<std::int32_t>();
    write.cu_k = flatten.cu_k = cu_k_device.as<std::int32_t>();
    write.max_total_q = 15;
    flatten.max_total_k = 29;
    write.k = k.data();
    write.v = v.data();
    write.strides = flatten.strides = pagedkv::packed_strides(1, kDim);
    flatten.k = out.data();
    flatten.v = out.data() + 29 * kDim * 2;
  }

  void use_pointers(const std::function<void(std::vector<char*>&)>& spoil) {
    std::vector<char*> pointers;
    for (const std::int32_t i : indices) pointers.push_back(slab.data() + i * layout.block_bytes);
    spoil(pointers);
    pointers_device = support::to_device(pointers);
    pagedkv::BlockTable table;
    table.pointers = pointers_device.as<char*>();
    table.cu_blocks = cu_blocks_device.as<std::int32_t>();
    write.table = flatten.table = table;
  }
};

/// Name of the argument that a call is refused for, or "".
std::string refused(const std::function<void()>& call) {
  try {
    call();
  } catch (const pagedkv::Error& e) {
    EXPECT_FALSE(e.value().empty()) << e.what();
    EXPECT_FALSE(e.accepted().empty()) << e.what();
    return e.argument();
  }
  return {};
}

std::string refused(const pagedkv::WriteKvArgs& a) {
  return refused([&] { pagedkv::cuda::write_kv(a, Validation::full, nullptr); });
}
std::string refused(const pagedkv::FlattenKvArgs& a) {
  return refused([&] { pagedkv::cuda::flatten_kv(a, Validation::full, nullptr); });
}

TEST(CudaValidation, GoodArgumentsPass) {
  PAGEDKV_NEEDS_DEVICE();
  DeviceCase c;
  c.upload();
  EXPECT_EQ(refused(c.write), "");
  EXPECT_EQ(refused(c.flatten), "");
  c.use_pointers([](std::vector<char*>&) {});
  EXPECT_EQ(refused(c.write), "");
  EXPECT_EQ(refused(c.flatten), "");
  cuda_ok(cudaDeviceSynchronize());
}

TEST(CudaValidation, NamesBadBlocks) {
  PAGEDKV_NEEDS_DEVICE();
  DeviceCase c;
  c.upload();
  c.use_pointers([](std::vector<char*>& p) { p[2] = nullptr; });
  EXPECT_EQ(refused(c.write), "WriteKvArgs.table.pointers[2]");
  EXPECT_EQ(refused(c.flatten), "FlattenKvArgs.table.pointers[2]");
  alignas(16) static char host[16];
  c.use_pointers([](std::vector<char*>& p) { p[4] = host; });
  EXPECT_EQ(refused(c.write), "WriteKvArgs.table.pointers[4]");
  EXPECT_EQ(refused(c.flatten), "FlattenKvArgs.table.pointers[4]");
  // Only blocks that are written matter to write_kv: the first one holds history.
  c.use_pointers([](std::vector<char*>& p) { p[0] = nullptr; });
  EXPECT_EQ(refused(c.write), "");
  EXPECT_EQ(refused(c.flatten), "FlattenKvArgs.table.pointers[0]");

  c.indices[4] = 6;
  c.upload();
  EXPECT_EQ(refused(c.write), "WriteKvArgs.table.indices[4]");
  EXPECT_EQ(refused(c.flatten), "FlattenKvArgs.table.indices[4]");
}

TEST(CudaValidation, NamesOverlaps) {
  PAGEDKV_NEEDS_DEVICE();
  DeviceCase c;
  c.indices = {4, 0, 3, 3, 5};
  c.upload();
  EXPECT_EQ(refused(c.write), "WriteKvArgs.table.indices[3]");
  EXPECT_EQ(refused(c.flatten), "") << "reading a shared block is fine";
  c.indices = {4, 0, 0, 1, 5};
  c.upload();
  EXPECT_EQ(refused(c.write), "WriteKvArgs.table.indices[2]");
}

TEST(CudaValidation, NamesBadLengths) {
  PAGEDKV_NEEDS_DEVICE();
  const auto write_with = [](const std::function<void(DeviceCase&)>& spoil) {
    DeviceCase c;
    spoil(c);
    c.upload();
    return refused(c.write);
  };
  EXPECT_EQ(write_with([](DeviceCase& c) { c.cu_q[1] = 16; }), "WriteKvArgs.cu_q[2]");
  EXPECT_EQ(write_with([](DeviceCase& c) { c.cu_k[2] = 28; }), "WriteKvArgs.cu_k[2]");
  EXPECT_EQ(write_with([](DeviceCase& c) { c.cu_blocks[1] = 2; }), "WriteKvArgs.table.cu_blocks[1]");
  EXPECT_EQ(write_with([](DeviceCase& c) { c.cu_q = {0, 8, 17}; }), "WriteKvArgs.cu_q[2]") << "beyond max_total_q";
  DeviceCase c;
  c.upload();
  c.flatten.max_total_k = 28;
  EXPECT_EQ(refused(c.flatten), "FlattenKvArgs.cu_k[2]");
}

TEST(CudaValidation, RefusesACapturedStream) {
  PAGEDKV_NEEDS_DEVICE();
  DeviceCase c;
  c.upload();
  cudaStream_t stream = nullptr;
  cuda_ok(cudaStreamCreate(&stream));
  cuda_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  EXPECT_EQ(refused([&] { pagedkv::cuda::write_kv(c.write, Validation::full, stream); }), "validation");
  cudaGraph_t graph = nullptr;
  cuda_ok(cudaStreamEndCapture(stream, &graph));
  cuda_ok(cudaGraphDestroy(graph));
  cuda_ok(cudaStreamDestroy(stream));
}

TEST(CudaGraph, ReplaysWithOtherLengths) {
  PAGEDKV_NEEDS_DEVICE();
  DeviceCase c;
  c.upload();
  cudaStream_t stream = nullptr;
  cuda_ok(cudaStreamCreate(&stream));
  cuda_ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  pagedkv::cuda::write_kv(c.write, stream);
  pagedkv::cuda::flatten_kv(c.flatten, stream);
  cudaGraph_t graph = nullptr;
  cuda_ok(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec = nullptr;
  cuda_ok(cudaGraphInstantiate(&exec, graph, 0));

  using Lengths = std::vector<std::int32_t>;
  const std::pair<Lengths, Lengths> cases[] = {
      {{0, 6, 15}, {0, 20, 29}}, {{0, 1, 2}, {0, 7, 8}}, {{0, 0, 3}, {0, 0, 16}}, {{0, 0, 0}, {0, 0, 0}}};
  for (const auto& [cu_q, cu_k] : cases) {
    std::vector<std::vector<char>> results;
    for (const bool replay : {false, true}) {
      c.cu_q_device.set(cu_q.data());
      c.cu_k_device.set(cu_k.data());
      cuda_ok(cudaMemset(c.slab.data(), 0x5a, c.slab.bytes()));
      cuda_ok(cudaMemset(c.out.data(), 0x77, c.out.bytes()));
      cuda_ok(cudaDeviceSynchronize());
      if (replay) {
        cuda_ok(cudaGraphLaunch(exec, stream));
      } else {
        pagedkv::cuda::write_kv(c.write, Validation::full, stream);
        pagedkv::cuda::flatten_kv(c.flatten, Validation::full, stream);
      }
      cuda_ok(cudaStreamSynchronize(stream));
      std::vector<char> bytes(c.slab.bytes() + c.out.bytes());
      c.slab.get(bytes.data());
      c.out.get(bytes.data() + c.slab.bytes());
      results.push_back(bytes);
    }
    EXPECT_EQ(results[0], results[1]) << cu_q[2] << " new tokens";
  }
  cuda_ok(cudaGraphExecDestroy(exec));
  cuda_ok(cudaGraphDestroy(graph));
  cuda_ok(cudaStreamDestroy(stream));
}

TEST(CudaCache, OffsetsBeyond32Bits) {
  PAGEDKV_NEEDS_DEVICE();
  // The second token lies more than 2^31 elements behind the first, its block more than 2^32 bytes into the slab, and
  // it comes back more than 2^31 elements into the output.
  constexpr std::int64_t kFar = (std::int64_t{1} << 31) + 64;
  pagedkv::CacheConfig config;
  config.head_dim = kDim;
  config.block_len = 1;
  config.layers = 4096;
  config.kv_heads = 16;
  const pagedkv::BlockLayout layout = make_layout(config);
  const auto far_block = static_cast<std::int32_t>((std::int64_t{1} << 32) / layout.block_bytes + 1);
  const DeviceBuffer slab(static_cast<std::size_t>((far_block + 1) * layout.block_bytes));
  const DeviceBuffer rows(static_cast<std::size_t>(2 * (kFar + 16 * kDim)));
  const DeviceBuffer out(static_cast<std::size_t>(2 * (kFar + 16 * kDim)));
  std::vector<std::uint16_t> row(16 * kDim);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<std::uint16_t>(0x3c00 + i);
  cuda_ok(cudaMemcpy(rows.data() + 2 * kFar, row.data(), row.size() * 2, cudaMemcpyHostToDevice));
  const std::vector<std::int32_t> cu = {0, 2};
  const std::vector<std::int32_t> indices = {0, far_block};
  const DeviceBuffer cu_device = support::to_device(cu);
  const DeviceBuffer indices_device = support::to_device(indices);

  pagedkv::WriteKvArgs w;
  w.layout = layout;
  w.layer = 4095;
  w.table.indices = indices_device.as<std::int32_t>();
  w.table.slab = slab.data();
  w.table.slab_blocks = far_block + 1;
  w.table.row_stride = 2;
  w.batch = 1;
  w.cu_q = w.cu_k = cu_device.as<std::int32_t>();
  w.max_total_q = 2;
  w.k = w.v = rows.data();
  w.strides = {0, 0, kFar, kDim};
  pagedkv::cuda::write_kv(w, nullptr);
  pagedkv::FlattenKvArgs f;
  f.layout = layout;
  f.layer = w.layer;
  f.table = w.table;
  f.batch = 1;
  f.cu_k = w.cu_k;
  f.max_total_k = 2;
  f.k = f.v = out.data();
  f.strides = w.strides;
  pagedkv::cuda::flatten_kv(f, nullptr);
  cuda_ok(cudaDeviceSynchronize());
  std::vector<std::uint16_t> back(row.size());
  cuda_ok(cudaMemcpy(back.data(), out.data() + 2 * kFar, back.size() * 2, cudaMemcpyDeviceToHost));
  EXPECT_EQ(back, row);
  cuda_ok(cudaMemcpy(back.data(), slab.data() + far_block * layout.block_bytes + layout.v_data(4095, 3, 0), 2 * kDim,
                     cudaMemcpyDeviceToHost));
  EXPECT_TRUE(std::equal(back.begin(), back.begin() + kDim, row.begin() + 3 * kDim));
}

}  // namespace
