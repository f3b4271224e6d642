#include "bench/attention_work.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>
#include <random>

#include "pagedkv/core/half.h"

namespace bench {
namespace {

constexpr std::size_t kAlignment = 4096;

char* align(std::vector<char>& v, std::size_t bytes) {
  v.assign(bytes + kAlignment, 0);
  const auto at = reinterpret_cast<std::uintptr_t>(v.data());
  return v.data() + (kAlignment - at % kAlignment) % kAlignment;
}

/// Fills n elements of T with bell-shaped numbers.
void fill(pagedkv::DType dtype, char* p, std::size_t n, std::mt19937& random) {
  std::uniform_real_distribution<float> part(-1.0F, 1.0F);
  for (std::size_t i = 0; i < n; ++i) {
    const float x = part(random) + part(random);
    if (dtype == pagedkv::DType::f32) {
      std::memcpy(p + 4 * i, &x, 4);
    } else {
      const std::uint16_t bits = dtype == pagedkv::DType::f16
                                     ? pagedkv::core::from_float<pagedkv::half_t>(x).bits
                                     : pagedkv::core::from_float<pagedkv::bfloat16_t>(x).bits;
      std::memcpy(p + 2 * i, &bits, 2);
    }
  }
}

}  // namespace

std::string format_name(pagedkv::DType dtype, pagedkv::KvFormat format) {
  const auto side = [&](pagedkv::KvType t) {
    return std::string(t == pagedkv::KvType::same ? pagedkv::name(dtype) : pagedkv::name(t));
  };
  return format.k == format.v ? side(format.k) : "K " + side(format.k) + " V " + side(format.v);
}

AttentionWork::AttentionWork(const AttentionShape& shape) : shape_(shape) {
  pagedkv::CacheConfig config;
  config.layers = shape.layers;
  config.kv_heads = shape.kv_heads;
  config.head_dim = shape.head_dim;
  config.block_len = shape.block_len;
  config.dtype = shape.dtype;
  config.format = shape.format;
  layout_ = pagedkv::make_layout(config);

  std::mt19937 random(1);
  const int blocks_per_sequence = (shape.k_len + shape.block_len - 1) / shape.block_len;
  const int blocks = shape.batch * blocks_per_sequence;
  char* slab = align(slab_, static_cast<std::size_t>(blocks * layout_.block_bytes));
  indices_.resize(static_cast<std::size_t>(blocks));
  std::iota(indices_.begin(), indices_.end(), 0);
  std::shuffle(indices_.begin(), indices_.end(), random);
  cu_q_ = {0};
  cu_k_ = {0};
  for (int b = 0; b < shape.batch; ++b) {
    cu_q_.push_back(cu_q_.back() + shape.q_len);
    cu_k_.push_back(cu_k_.back() + shape.k_len);
  }

  // One layer through write_kv; the others are copies.
  const auto element = static_cast<std::size_t>(pagedkv::dtype_bytes(shape.dtype));
  const std::size_t row = static_cast<std::size_t>(shape.kv_heads) * static_cast<std::size_t>(shape.head_dim);
  const auto tokens = static_cast<std::size_t>(cu_k_.back());
  std::vector<char> k_memory;
  std::vector<char> v_memory;
  char* k = align(k_memory, tokens * row * element);
  char* v = align(v_memory, tokens * row * element);
  fill(shape.dtype, k, tokens * row, random);
  fill(shape.dtype, v, tokens * row, random);
  pagedkv::WriteKvArgs write;
  write.layout = layout_;
  write.table.indices = indices_.data();
  write.table.slab = slab;
  write.table.slab_blocks = blocks;
  write.table.row_stride = blocks_per_sequence;
  write.batch = shape.batch;
  write.cu_q = cu_k_.data();
  write.cu_k = cu_k_.data();
  write.k = k;
  write.v = v;
  write.strides = pagedkv::packed_strides(shape.kv_heads, shape.head_dim);
  pagedkv::cpu::write_kv(write, {shape.threads});
  for (int b = 0; b < blocks; ++b) {
    char* block = slab + b * layout_.block_bytes;
    for (int l = 1; l < shape.layers; ++l) {
      std::memcpy(block + l * layout_.layer_bytes, block, static_cast<std::size_t>(layout_.layer_bytes));
    }
  }

  const std::size_t q_elements = static_cast<std::size_t>(cu_q_.back()) * static_cast<std::size_t>(shape.q_heads) *
                                 static_cast<std::size_t>(shape.head_dim);
  char* q = align(q_, q_elements * element);
  fill(shape.dtype, q, q_elements, random);
  args_.layout = layout_;
  args_.table = write.table;
  args_.batch = shape.batch;
  args_.cu_q = cu_q_.data();
  args_.cu_k = cu_k_.data();
  args_.max_total_q = cu_q_.back();
  args_.max_q_len = shape.q_len;
  args_.max_k_len = shape.k_len;
  args_.q_heads = shape.q_heads;
  args_.q = q;
  args_.q_strides = pagedkv::packed_strides(shape.q_heads, shape.head_dim);
  args_.o = align(o_, q_elements * element);
  args_.o_strides = args_.q_strides;
  args_.layer = shape.layers - 1;
  const std::size_t bytes = pagedkv::cpu::prefill_workspace_bytes(args_, {shape.threads});
  memory_ = {align(workspace_, bytes), bytes};
}

double AttentionWork::run() {
  args_.layer = (args_.layer + 1) % shape_.layers;
  const auto start = std::chrono::steady_clock::now();
  pagedkv::cpu::prefill(args_, memory_, {shape_.threads});
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double AttentionWork::cache_bytes_read() const {
  return static_cast<double>(shape_.batch) * shape_.k_len * shape_.kv_heads *
         (layout_.k_row_bytes + layout_.v_row_bytes + layout_.k_param_bytes + layout_.v_param_bytes);
}

double AttentionWork::flop() const {
  const double history = shape_.k_len - shape_.q_len;
  const double keys = shape_.q_len * history + shape_.q_len * (shape_.q_len + 1.0) / 2;
  return 4.0 * shape_.head_dim * shape_.q_heads * shape_.batch * keys;
}

}  // namespace bench
