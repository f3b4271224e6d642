#include "bench/workload.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <random>

#include "bench/machine_limits.h"
#include "pagedkv/core/half.h"

namespace bench {
namespace {

using namespace pagedkv;

template <class T>
void fill_normal(std::span<std::byte> memory, std::uint32_t seed) {
  std::mt19937 bits(seed);
  for (std::size_t i = 0; i + sizeof(T) <= memory.size(); i += sizeof(T)) {
    // Four uniform bytes: close enough to normal, and much faster.
    const auto r = bits();
    const auto sum = static_cast<int>((r & 255U) + ((r >> 8) & 255U) + ((r >> 16) & 255U) + (r >> 24));
    const T x = core::from_float<T>(static_cast<float>(sum - 510) / 148.0F);
    std::memcpy(memory.data() + i, &x, sizeof(T));
  }
}

void fill_normal(DType dtype, std::span<std::byte> memory, std::uint32_t seed) {
  switch (dtype) {
    case DType::f32:
      return fill_normal<float>(memory, seed);
    case DType::f16:
      return fill_normal<half_t>(memory, seed);
    case DType::bf16:
      return fill_normal<bfloat16_t>(memory, seed);
  }
}

std::vector<std::int32_t> multiples(std::int32_t count, std::int32_t step) {
  std::vector<std::int32_t> v;
  for (std::int32_t i = 0; i <= count; ++i) v.push_back(i * step);
  return v;
}

std::int32_t blocks_per_sequence(const Shape& s) {
  return (s.context + s.config.block_len - 1) / s.config.block_len;
}

/// Gives every sequence its blocks, in a physical order that follows no pattern.
BatchTable shuffled_table(const Shape& s, BlockPool& pool) {
  std::vector<BlockId> ids(static_cast<std::size_t>(pool.blocks()));
  pool.allocate(ids);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(7));
  std::vector<std::span<const BlockId>> sequences;
  const auto n = static_cast<std::size_t>(blocks_per_sequence(s));
  for (std::size_t b = 0; b < static_cast<std::size_t>(s.batch); ++b) {
    sequences.push_back(std::span<const BlockId>(ids).subspan(b * n, n));
  }
  return make_batch_table(pool, sequences);
}

}  // namespace

Buffer::Buffer(std::size_t bytes)
    : data_(std::aligned_alloc(256, std::max<std::size_t>(256, (bytes + 255) / 256 * 256))), bytes_(bytes) {
  if (data_ == nullptr) throw std::bad_alloc();
  std::memset(data_.get(), 0, bytes);  // page faults belong to no measurement
}

Workload::Workload(const Shape& shape)
    : shape_(shape),
      layout_(make_layout(shape.config)),
      pool_(layout_, shape.batch * blocks_per_sequence(shape)),
      table_(shuffled_table(shape, pool_)),
      cu_all_(multiples(shape.batch, shape.context)),
      cu_decode_(multiples(shape.batch, 1)),
      cu_prefill_(multiples(shape.batch, shape.q_len)),
      rope_(make_rope_table({.type = RopeType::standard, .dim = std::min(shape.config.head_dim, 256) / 16 * 16},
                            shape.config.head_dim)),
      k_(kv_bytes()),
      v_(kv_bytes()),
      flat_k_(kv_bytes()),
      flat_v_(kv_bytes()),
      q_(query_bytes(shape.q_len)),
      o_(query_bytes(shape.q_len)),
      decode_(attention(cu_decode_, 1)),
      prefill_(attention(cu_prefill_, shape.q_len)),
      decode_workspace_(cpu::decode_workspace_bytes(decode_, {shape.threads})),
      prefill_workspace_(cpu::prefill_workspace_bytes(prefill_, {shape.threads})) {
  fill_normal(layout_.dtype, k_.bytes(), 1);
  fill_normal(layout_.dtype, v_.bytes(), 2);
  fill_normal(layout_.dtype, q_.bytes(), 3);
  write();
}

AttentionArgs Workload::attention(const std::vector<std::int32_t>& cu_q, std::int32_t q_len) const {
  const TokenStrides rows = packed_strides(shape_.q_heads, layout_.head_dim);
  return {.layout = layout_,
          .table = table_.by_index(),
          .batch = shape_.batch,
          .cu_q = cu_q.data(),
          .cu_k = cu_all_.data(),
          .max_total_q = std::int64_t{shape_.batch} * q_len,
          .max_q_len = q_len,
          .max_k_len = shape_.context,
          .q_heads = shape_.q_heads,
          .q = q_.data(),
          .q_strides = rows,
          .o = o_.data(),
          .o_strides = rows};
}

void Workload::write() {
  cpu::write_kv({.layout = layout_,
                 .table = table_.by_index(),
                 .batch = shape_.batch,
                 .cu_q = cu_all_.data(),
                 .cu_k = cu_all_.data(),
                 .k = k_.data(),
                 .v = v_.data(),
                 .strides = packed_strides(layout_.kv_heads, layout_.head_dim),
                 .rope = rope_},
                {shape_.threads});
}

void Workload::flatten() {
  cpu::flatten_kv({.layout = layout_,
                   .table = table_.by_index(),
                   .batch = shape_.batch,
                   .cu_k = cu_all_.data(),
                   .k = flat_k_.data(),
                   .v = flat_v_.data(),
                   .strides = packed_strides(layout_.kv_heads, layout_.head_dim)},
                  {shape_.threads});
}

void Workload::decode() {
  cpu::decode(decode_, {decode_workspace_.data(), decode_workspace_.bytes().size()}, {shape_.threads});
}

void Workload::prefill() {
  cpu::prefill(prefill_, {prefill_workspace_.data(), prefill_workspace_.bytes().size()}, {shape_.threads});
}

double Workload::write_bytes() const {
  return static_cast<double>(2 * kv_bytes() + cache_bytes());
}

double Workload::flatten_bytes() const {
  return write_bytes();
}

double Workload::decode_bytes() const {
  return static_cast<double>(cache_bytes() + 2 * query_bytes(1));
}

double Workload::prefill_flop() const {
  const double keys = shape_.q_len * (shape_.context - shape_.q_len) + shape_.q_len * (shape_.q_len + 1.0) / 2;
  return 4.0 * layout_.head_dim * shape_.q_heads * shape_.batch * keys;
}

void Workload::evict() const {
  const auto slab_bytes = static_cast<std::size_t>(pool_.blocks()) * static_cast<std::size_t>(layout_.block_bytes);
  bench::evict({reinterpret_cast<const std::byte*>(pool_.slab()), slab_bytes});
  for (const Buffer* b : {&k_, &v_, &flat_k_, &flat_v_, &q_, &o_, &decode_workspace_, &prefill_workspace_}) {
    bench::evict(b->bytes());
  }
}

std::size_t Workload::tokens() const {
  return static_cast<std::size_t>(shape_.batch) * static_cast<std::size_t>(shape_.context);
}

std::size_t Workload::kv_bytes() const {
  return tokens() * static_cast<std::size_t>(layout_.kv_heads * layout_.head_dim * dtype_bytes(layout_.dtype));
}

std::size_t Workload::query_bytes(std::int32_t q_len) const {
  return static_cast<std::size_t>(shape_.batch) * static_cast<std::size_t>(q_len) *
         static_cast<std::size_t>(shape_.q_heads * layout_.head_dim * dtype_bytes(layout_.dtype));
}

std::size_t Workload::cache_bytes() const {
  return tokens() * static_cast<std::size_t>(layout_.block_bytes / layout_.block_len);
}

}  // namespace bench
