#include "pagedkv/cache_config.h"
#include "pagedkv/cuda.h"
#include "pagedkv/interop/turbomind.h"

namespace pagedkv::turbomind::detail {
namespace {

/// What write_kv and flatten_kv have in common.
template <class Args>
Args common_args(const CacheCall& c) {
  CacheConfig config;
  // As many layers as it takes to hold this one: the number of layers moves no byte of the others.
  config.layers = c.layer_id + 1;
  config.kv_heads = c.head_num;
  config.head_dim = c.head_dim;
  config.block_len = c.block_seq_len;
  config.dtype = c.dtype;
  config.format = format_from_quant_policy(c.quant_policy);
  config.shared_kv = c.head_dim == block::kMlaHeadDim;

  Args a;
  a.layout = make_layout(config);
  a.layer = c.layer_id;
  a.table.pointers = c.blocks;
  a.table.cu_blocks = c.cu_block_num;
  a.batch = c.batch_size;
  a.cu_k = c.cu_k_len;
  a.strides = {c.stride_b * c.head_dim, c.stride_c * c.head_dim, c.stride_s * c.head_dim, c.stride_h * c.head_dim};
  a.rope = turbomind::make_rope_table(c.rope_param, c.head_dim);
  a.cp.rank = c.cp_rank;
  a.cp.size = c.cp_size;
  return a;
}

}  // namespace

void process_kv(const CacheCall& c, const void* k, const void* v, const void* k_bias, const void* v_bias) {
  auto a = common_args<WriteKvArgs>(c);
  a.cu_q = c.cu_q_len;
  a.max_total_q = std::int64_t{c.max_len} * c.batch_size;
  a.k = k;
  a.v = v;
  a.k_bias = k_bias;
  a.v_bias = v_bias;
  cuda::write_kv(a, c.stream);
}

void flatten_kv(const CacheCall& c, void* k, void* v) {
  auto a = common_args<FlattenKvArgs>(c);
  a.max_total_k = std::int64_t{c.max_len} * c.batch_size;
  a.k = k;
  a.v = v;
  cuda::flatten_kv(a, c.stream);
}

}  // namespace pagedkv::turbomind::detail
