// The interface of TurboMind's documents: their examples as they stand, and a kernel of the kind they describe that
// walks over the tiles of a ragged batch.

#include "pagedkv/interop/turbomind.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/device_ops.h"
#include "cuda/launch.h"
#include "pagedkv/core/quant.h"
#include "pagedkv/cuda.h"
#include "pagedkv/error.h"

namespace {

using namespace pagedkv::turbomind;
using support::DeviceBuffer;

constexpr int kHeads = 2;
constexpr int kDim = 128;
constexpr int kBlockLen = 64;
constexpr int kTile = 64;
constexpr int kLayers = 2;

TEST(TurboMind, CacheBlockSize) {
  size_t block_bytes = get_cache_block_size(DataType::TYPE_FP16, DataType::TYPE_INT8, 32, 8, 128, 64);
  EXPECT_EQ(block_bytes, 4325376U);
  EXPECT_EQ(get_cache_block_size(DataType::TYPE_BF16, DataType::TYPE_BF16, 1, 8, 128, 64), 8U * 2 * 64 * 256);
  EXPECT_EQ(get_cache_block_size(DataType::TYPE_FP16, DataType::TYPE_UINT4, 1, 1, 576, 64), 64U * (288 + 4));
  EXPECT_THROW(get_cache_block_size(DataType::TYPE_FP16, DataType::TYPE_BF16, 1, 8, 128, 64), pagedkv::Error);
  EXPECT_THROW(get_cache_block_size(DataType::TYPE_INT8, DataType::TYPE_INT8, 1, 8, 128, 64), pagedkv::Error);
}

TEST(TurboMind, RopeFactorsGiveOurFrequencies) {
  pagedkv::RopeParams ours;
  ours.type = pagedkv::RopeType::linear;
  ours.dim = 64;
  ours.factor = 4;
  const pagedkv::core::RopeTable expected = make_rope_table(ours, 128);
  RopeKernelParam theirs;
  theirs.type = RopeType::kLinear;
  theirs.dim = 64;
  theirs.scale_factor = -std::log2(10000.0F) / 64;
  theirs.inv_factor = 0.25F;
  const pagedkv::core::RopeTable table = make_rope_table(theirs, 128);
  for (int i = 0; i < 32; ++i) {
    // float32 of the scale factor, times up to 62 channels, in the exponent of 2.
    EXPECT_NEAR(static_cast<double>(table.turn[i]) / static_cast<double>(expected.turn[i]), 1.0, 1e-6) << i;
  }
  theirs.dim = 12;
  EXPECT_THROW(make_rope_table(theirs, 128), pagedkv::Error);
}

/// Reads element d of a row of a tile and what it stands for.
template <class T>
__device__ float value_of(const T* data, const T*, int d) {
  return __half2float(data[d]);
}
template <class T>
__device__ float value_of(const std::uint8_t* data, const T* param, int d) {
  return __half2float(__hfma(__ushort2half_rn(data[d]), param[0], param[1]));
}
template <class T>
__device__ float value_of(SubBytePtr data, const T* param, int d) {
  const auto word = *reinterpret_cast<const std::uint32_t*>(data.ptr + d / 8 * 4);
  return __half2float(__hfma(__ushort2half_rn(static_cast<unsigned short>(pagedkv::core::unpack_int4(word, d % 8))),
                             param[0], param[1]));
}

/// One CTA per (head, sequence), the last tile first. Writes K and V of every token to out [token][head][K,V][D].
template <class T, class Factory>
__global__ void walk_kernel(Factory factory, const int* cu_k_len, float* out) {
  const int batch_idx = blockIdx.y;
  const int kv_head_idx = blockIdx.x;
  const int start = cu_k_len[batch_idx];
  const int length = cu_k_len[batch_idx + 1] - start;
  const int last_tile = (length + kTile - 1) / kTile - 1;
  if (last_tile < 0) return;
  auto iter = factory.Create(batch_idx, kv_head_idx);
  iter.SetTile(last_tile);
  for (int tile = last_tile; tile >= 0; --tile) {
    for (int i = threadIdx.x; i < kTile * kDim; i += blockDim.x) {
      const int row = i / kDim;
      const int token = tile * kTile + row;
      if (token >= length) continue;
      float* to = out + (static_cast<std::int64_t>(start + token) * kHeads + kv_head_idx) * 2 * kDim + i % kDim;
      to[0] = value_of<T>(iter.template OffsetPtr<0>(row * kDim), iter.template OffsetPtr<2>(row * 2), i % kDim);
      to[kDim] = value_of<T>(iter.template OffsetPtr<1>(row * kDim), iter.template OffsetPtr<3>(row * 2), i % kDim);
    }
    iter.Advance();
  }
}

template <class Tkv>
void walk_a_ragged_batch() {
  const std::vector<int> k_len = {1, 64, 0, 130, 63};
  const int batch = static_cast<int>(k_len.size());
  std::vector<int> cu_k_len = {0};
  std::vector<int> cu_block_num = {0};
  for (const int length : k_len) {
    cu_k_len.push_back(cu_k_len.back() + length);
    cu_block_num.push_back(cu_block_num.back() + (length + kBlockLen - 1) / kBlockLen);
  }
  const int tokens = cu_k_len.back();
  constexpr int kPolicy = std::is_same_v<Tkv, half> ? 0 : std::is_same_v<Tkv, uint4_t> ? 4 : 8;
  constexpr DataType kStored = kPolicy == 0   ? DataType::TYPE_FP16
                               : kPolicy == 4 ? DataType::TYPE_INT4
                                              : DataType::TYPE_INT8;
  const std::size_t block_bytes = get_cache_block_size(DataType::TYPE_FP16, kStored, kLayers, kHeads, kDim, kBlockLen);
  const DeviceBuffer memory(block_bytes * static_cast<std::size_t>(cu_block_num.back()));
  std::vector<char*> pointers;
  for (int i = cu_block_num.back(); i > 0; --i)
    pointers.push_back(memory.data() + block_bytes * static_cast<std::size_t>(i - 1));

  std::vector<half> rows(static_cast<std::size_t>(tokens) * 2 * kHeads * kDim);
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = __float2half(std::sin(0.37F * static_cast<float>(i)) * 3.0F);
  const DeviceBuffer kv = support::to_device(rows);  // [token][K heads, V heads][D]
  const DeviceBuffer block_table = support::to_device(pointers);
  const DeviceBuffer cu_k = support::to_device(cu_k_len);
  const DeviceBuffer cu_blocks = support::to_device(cu_block_num);
  const DeviceBuffer flat(rows.size() * 2);
  char** block_ptrs = block_table.as<char*>();
  const int* cu_block_nums = cu_blocks.as<int>();
  const int layer_id = 1;

  AttentionParams<half> attention_params;
  attention_params.k = kv.as<half>();
  attention_params.v = kv.as<half>() + kHeads * kDim;
  attention_params.stride = 2 * kHeads * kDim;
  attention_params.cu_q_len = attention_params.cu_k_len = cu_k.as<int>();
  attention_params.block_iter_params = {block_ptrs, cu_block_nums, layer_id, kBlockLen};
  attention_params.linear_iter_params.kv_cache = flat.data();
  attention_params.batch_size = batch;
  attention_params.max_q_len = attention_params.max_k_len = 130;
  attention_params.num_kv_heads = kHeads;
  attention_params.size_per_head = kDim;
  attention_params.quant_policy = kPolicy;
  // Write K/V to paged cache during prefill
  invokeProcessKV_v2_(attention_params);
  invokeFlattenKV_v2_(attention_params, tokens);
  support::cuda_ok(cudaDeviceSynchronize());
  std::vector<half> flattened(rows.size());
  flat.get(flattened.data());

  const block::Layout<block::Config<half, Tkv, kDim>> layout{kHeads, kBlockLen};
  auto factory = GetBlockIterFactory<half, Tkv, kTile, kDim>{layout, block_ptrs, cu_block_nums, layer_id};
  const DeviceBuffer out(rows.size() * sizeof(float));
  support::launch(&walk_kernel<half, decltype(factory)>, {dim3(kHeads, static_cast<unsigned>(batch)), 128}, factory,
                  cu_k.as<int>(), out.as<float>());
  std::vector<float> walked(rows.size());
  out.get(walked.data());
  for (int t = 0; t < tokens; ++t) {
    for (int h = 0; h < kHeads; ++h) {
      for (int side = 0; side < 2; ++side) {
        for (int d = 0; d < kDim; ++d) {
          const float x = walked[static_cast<std::size_t>(((t * kHeads + h) * 2 + side) * kDim + d)];
          // flattened is [head][K,V][token][D]
          ASSERT_EQ(x, __half2float(flattened[static_cast<std::size_t>(((h * 2 + side) * tokens + t) * kDim + d)]));
          const float truth = __half2float(rows[static_cast<std::size_t>(((t * 2 + side) * kHeads + h) * kDim + d)]);
          const float step = kPolicy == 0 ? 0.0F : 6.0F / static_cast<float>((1 << kPolicy) - 1);
          ASSERT_NEAR(x, truth, 0.51F * step + 2e-3F * (kPolicy == 0 ? 0.0F : 3.0F));
        }
      }
    }
  }
}

TEST(TurboMind, WalksABatchOfHalf) {
  PAGEDKV_NEEDS_DEVICE();
  walk_a_ragged_batch<half>();
}
TEST(TurboMind, WalksABatchOfInt8) {
  PAGEDKV_NEEDS_DEVICE();
  walk_a_ragged_batch<std::uint8_t>();
}
TEST(TurboMind, WalksABatchOfInt4) {
  PAGEDKV_NEEDS_DEVICE();
  walk_a_ragged_batch<uint4_t>();
}

/// The signatures, with all their parameters, for both types.
template <class T>
void instantiate() {
  const auto process = [](char** blocks, const T* k, const int* cu, const RopeKernelParam& rope) {
    invokeProcessKV_v2<T>(blocks, k, k, k, k, cu, cu, cu, rope, 0, 1, 1, 1, 64, 0, 0, cutlass::FastDivmod{2}, 1, 1, 128,
                          0, 8);
    invokeFlattenKV_v2<T>(const_cast<T*>(k), const_cast<T*>(k), blocks, cu, cu, rope, 0, 1, 1, 1, 64, 0, 0, 2, 1, 1,
                          128, 0, 8, cudaStream_t{});
  };
  process(nullptr, nullptr, nullptr, RopeKernelParam{});  // batch_size 0: nothing to do
}

TEST(TurboMind, BothTypes) {
  instantiate<half>();
  instantiate<__nv_bfloat16>();
}

TEST(TurboMind, UnknownPolicyIsRefused) {
  EXPECT_THROW(invokeProcessKV_v2<half>(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                        RopeKernelParam{}, 0, 1, 1, 1, 64, 0, 0, 1, 1, 1, 128, 0, 16),
               pagedkv::Error);
}

}  // namespace
