#pragma once
// TurboMind's cache interface (kv_cache_utils_v2.h and block_iterator.h of lmdeploy 0.11) over pagedkv's kernels:
// names, parameter order and defaults are theirs, bytes are those of docs/layout.md. `using namespace
// pagedkv::turbomind;` and code written for them compiles.
//
// Unlike theirs: arguments are checked (Error), max_q_len may exceed the true maximum at no harm, a head_dim without
// kernel is an Error, and keys are rotated and quantised with one rounding (docs/quant.md, docs/rope.md).
//
// This is the one header that includes CUDA's; without them only the iterators and get_cache_block_size() are there.

#include <cstddef>
#include <cstdint>

#include "pagedkv/core/block_iterator.h"
#include "pagedkv/core/fast_divmod.h"
#include "pagedkv/core/rope.h"
#include "pagedkv/types.h"

#if __has_include(<cuda_runtime_api.h>)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#define PAGEDKV_TURBOMIND_KERNELS 1
#endif

#if __has_include(<cutlass/fast_math.h>)
#include <cutlass/fast_math.h>
#endif

namespace pagedkv::turbomind {

namespace block = pagedkv::block;
using pagedkv::BlockIterator;
using pagedkv::BlockIteratorFactory;
using pagedkv::CreateCacheIterFactory;
using pagedkv::GetBlockIterFactory;
using pagedkv::LinearIterator;
using pagedkv::LinearIteratorFactory;
using pagedkv::SubBytePtr;
using pagedkv::uint4_t;

namespace cutlass {
#if __has_include(<cutlass/fast_math.h>)
using FastDivmod = ::cutlass::FastDivmod;
#else
/// Stands in for CUTLASS's type of this name where CUTLASS is absent.
struct FastDivmod : core::FastDivmod {
  FastDivmod() = default;
  FastDivmod(int d) : core::FastDivmod(d) {}  // NOLINT: implicit, as theirs is
};
#endif
}  // namespace cutlass

enum class DataType { TYPE_FP16, TYPE_BF16, TYPE_FP32, TYPE_INT8, TYPE_UINT8, TYPE_INT4, TYPE_UINT4 };

/// Bytes of one cache block: all layers, keys and values, and {scale, zero} if kvtype is narrower than dtype.
/// @throws Error (invalid_argument) for a kvtype that is neither dtype nor 8 nor 4 bits wide, or sizes out of range
std::size_t get_cache_block_size(DataType dtype, DataType kvtype, int layer_num, int head_num, int head_dim,
                                 int block_seq_len);

enum class RopeType { kNull, kDefault, kLinear, kDynamic, kYarn, kLlama3 };

struct YarnRopeKernelParam {
  float ramp_inv_factor_div_2 = 0;
  float ramp_inv_factor_mul_min = 0;
  float attention_factor = 1;
};

struct Llama3RopeKernelParam {
  float alpha = 0;
  float beta = 0;
};

/// Multimodal positions, with any type. Arrays are device memory, as in RopeParams.
struct MropeRopeKernelParam {
  MropeMode mode = MropeMode::none;
  int section[3] = {0, 0, 0};  ///< pairs of each axis
  const int* position_ids = nullptr;
  const int* offsets = nullptr;
  const int* length = nullptr;
  const int* position_delta = nullptr;
};

/// Rotary embedding of interleaved pairs. docs/rope.md has the formulas behind the factors.
struct RopeKernelParam {
  RopeType type = RopeType::kNull;
  float* base = nullptr;  ///< kDynamic: [batch] device memory
  int dim = 0;
  float scale_factor = 0;  ///< -log2(base) / dim
  float inv_factor = 1;    ///< 1 / factor
  YarnRopeKernelParam yarn;
  Llama3RopeKernelParam llama3;
  MropeRopeKernelParam mrope;
};

/// RopeKernelParam as the kernels take it.
/// @throws Error (invalid_argument) naming the field
core::RopeTable make_rope_table(const RopeKernelParam& param, int head_dim);

#if defined(PAGEDKV_TURBOMIND_KERNELS)

struct LinearIteratorParams {
  const void* kv_cache = nullptr;
  std::int64_t stride_h = 0;
  std::int64_t key_to_val = 0;
};

struct BlockIteratorParams {
  char** block_ptrs = nullptr;
  const int* cu_block_nums = nullptr;
  int layer_id = 0;
  int block_len = 0;
};

/// What the functions below and CreateCacheIterFactory read of TurboMind's attention parameters.
template <class T>
struct AttentionParams {
  T* k = nullptr;
  T* v = nullptr;
  std::int64_t stride = 0;  ///< elements from a token of k (and v) to the next
  T* k_bias = nullptr;
  T* v_bias = nullptr;

  const int* cu_q_len = nullptr;
  const int* cu_k_len = nullptr;

  LinearIteratorParams linear_iter_params;
  BlockIteratorParams block_iter_params;

  int batch_size = 0;
  int max_q_len = 0;
  int max_k_len = 0;
  int num_kv_heads = 0;
  int size_per_head = 0;

  RopeKernelParam rope_param;
  int cp_rank = 0;
  cutlass::FastDivmod cp_size{1};
  int quant_policy = 0;
  cudaStream_t stream = {};
};

namespace detail {

/// The arguments of both functions, of any T.
struct CacheCall {
  DType dtype;
  char** blocks;
  const int* cu_q_len;  ///< null for flatten
  const int* cu_k_len;
  const int* cu_block_num;
  const RopeKernelParam& rope_param;
  std::int64_t stride_b, stride_c, stride_h, stride_s;
  int block_seq_len, layer_id;
  int cp_rank, cp_size;
  int max_len, head_num, head_dim;
  int batch_size, quant_policy;
  cudaStream_t stream;
};

void process_kv(const CacheCall& call, const void* k, const void* v, const void* k_bias, const void* v_bias);
void flatten_kv(const CacheCall& call, void* k, void* v);

template <class T>
constexpr DType dtype_of_cuda();
template <>
constexpr DType dtype_of_cuda<half>() {
  return DType::f16;
}
template <>
constexpr DType dtype_of_cuda<__nv_bfloat16>() {
  return DType::bf16;
}

}  // namespace detail

// Strides count rows of head_dim elements: element d of head h of new token i of sequence b is at
// (b*stride_b + cu[b]*stride_c + i*stride_s + h*stride_h) * head_dim + d. In flatten cu is counted from cu_k_len[0].
// head_num counts KV heads. T is half or __nv_bfloat16.

/// write_kv. `blocks` are the block addresses of all sequences, those of sequence b from cu_block_num[b] on.
template <class T>
void invokeProcessKV_v2(char** blocks, const T* k, const T* v, const T* k_bias, const T* v_bias, const int* cu_q_len,
                        const int* cu_k_len, const int* cu_block_num, const RopeKernelParam& rope_param,
                        std::int64_t stride_b, std::int64_t stride_c, std::int64_t stride_h, std::int64_t stride_s,
                        int block_seq_len, int layer_id, int cp_rank, cutlass::FastDivmod cp_size, int max_q_len,
                        int head_num, int head_dim, int batch_size, int quant_policy, cudaStream_t stream = {}) {
  detail::process_kv({detail::dtype_of_cuda<T>(),
                      blocks,
                      cu_q_len,
                      cu_k_len,
                      cu_block_num,
                      rope_param,
                      stride_b,
                      stride_c,
                      stride_h,
                      stride_s,
                      block_seq_len,
                      layer_id,
                      cp_rank,
                      static_cast<int>(cp_size),
                      max_q_len,
                      head_num,
                      head_dim,
                      batch_size,
                      quant_policy,
                      stream},
                     k, v, k_bias, v_bias);
}

template <class T>
void invokeProcessKV_v2_(const AttentionParams<T>& params) {
  const std::int64_t stride = params.stride / params.size_per_head;
  invokeProcessKV_v2<T>(params.block_iter_params.block_ptrs, params.k, params.v, params.k_bias, params.v_bias,
                        params.cu_q_len, params.cu_k_len, params.block_iter_params.cu_block_nums, params.rope_param, 0,
                        stride, 1, stride, params.block_iter_params.block_len, params.block_iter_params.layer_id,
                        params.cp_rank, params.cp_size, params.max_q_len, params.num_kv_heads, params.size_per_head,
                        params.batch_size, params.quant_policy, params.stream);
}

/// flatten_kv, with RoPE if rope_param has one. max_seq_len bounds every k_len.
template <class T>
void invokeFlattenKV_v2(T* k, T* v, char** blocks, const int* cu_k_len, const int* cu_block_num,
                        const RopeKernelParam& rope_param, std::int64_t stride_b, std::int64_t stride_c,
                        std::int64_t stride_h, std::int64_t stride_s, int block_seq_len, int layer_id, int cp_rank,
                        cutlass::FastDivmod cp_size, int max_seq_len, int head_num, int head_dim, int batch_size,
                        int quant_policy, cudaStream_t stream = {}) {
  detail::flatten_kv({detail::dtype_of_cuda<T>(),
                      blocks,
                      nullptr,
                      cu_k_len,
                      cu_block_num,
                      rope_param,
                      stride_b,
                      stride_c,
                      stride_h,
                      stride_s,
                      block_seq_len,
                      layer_id,
                      cp_rank,
                      static_cast<int>(cp_size),
                      max_seq_len,
                      head_num,
                      head_dim,
                      batch_size,
                      quant_policy,
                      stream},
                     k, v);
}

/// Into linear_iter_params.kv_cache as [head][K,V][sum_k_len][head_dim], without RoPE: the cache holds rotated keys.
template <class T>
void invokeFlattenKV_v2_(const AttentionParams<T>& params, int sum_k_len) {
  T* k = static_cast<T*>(const_cast<void*>(params.linear_iter_params.kv_cache));
  invokeFlattenKV_v2<T>(k, k + std::int64_t{sum_k_len} * params.size_per_head, params.block_iter_params.block_ptrs,
                        params.cu_k_len, params.block_iter_params.cu_block_nums, RopeKernelParam{}, 0, 1,
                        std::int64_t{2} * sum_k_len, 1, params.block_iter_params.block_len,
                        params.block_iter_params.layer_id, params.cp_rank, params.cp_size, params.max_k_len,
                        params.num_kv_heads, params.size_per_head, params.batch_size, params.quant_policy,
                        params.stream);
}

#endif  // PAGEDKV_TURBOMIND_KERNELS

}  // namespace pagedkv::turbomind
