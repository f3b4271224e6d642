#pragma once
// The model's view of pagedkv: a pool of blocks in one format, and one forward pass over some of its sequences.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config.h"
#include "pagedkv/block_pool.h"
#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"

namespace llama {

/// What a cache stores.
struct CacheFormat {
  pagedkv::DType dtype = pagedkv::DType::f32;
  pagedkv::KvFormat kv;
};

/// "f32", "f16", "bf16", "int8", "int4", or two of them for keys and values: "int8/int4", "f16/int4".
/// @param quant_dtype  T of formats that name none
/// @throws pagedkv::Error (invalid_argument)
CacheFormat parse_format(std::string_view text, pagedkv::DType quant_dtype);

/// "f16 same", "int8", "K int8 + V int4", ...
std::string label(const CacheFormat& format);

/// Memory for the keys and values of some sequences.
class PagedCache {
 public:
  /// @param blocks   size of the pool
  /// @param threads  of every operation; 0: as many as the machine has
  PagedCache(const Config& model, const CacheFormat& format, std::int32_t block_len, std::int32_t blocks, int threads);

  pagedkv::SequenceBlocks new_sequence() { return pagedkv::SequenceBlocks(pool_); }
  const pagedkv::BlockLayout& layout() const { return pool_.layout(); }
  double bytes_per_token() const;
  /// Stored bits of one element of a key or value row, parameters included.
  double bits_per_element() const;

 private:
  friend class Step;

  pagedkv::BlockPool pool_;
  std::int32_t q_heads_;
  pagedkv::core::RopeTable rope_;
  pagedkv::cpu::Exec exec_;
  std::vector<std::uint16_t> rounded_;  // q, k and v as f16 or bf16
  std::vector<std::byte> workspace_;
};

/// A sequence and the tokens that a step adds to it.
struct NewTokens {
  pagedkv::SequenceBlocks* sequence;
  std::span<const std::int32_t> tokens;
};

/// One forward pass of a ragged batch through a cache.
class Step {
 public:
  /// Makes room for the new tokens.
  /// @throws pagedkv::Error (invalid_state) if the pool has too few blocks
  Step(PagedCache& cache, std::span<const NewTokens> batch);

  std::int32_t rows() const { return cu_q_.back(); }

  /// Attention of one layer: rotates the queries, writes keys (rotated by the library) and values into the cache and
  /// attends over what the cache now holds.
  /// @param qkv  [rows][q_heads + 2 * kv_heads][head_dim]; the queries are rotated in place
  /// @param out  [rows][q_heads][head_dim]
  void attend(std::int32_t layer, float* qkv, float* out);

 private:
  PagedCache& cache_;
  std::vector<std::int32_t> cu_q_{0};
  std::vector<std::int32_t> cu_k_{0};
  std::vector<std::int32_t> readonly_;
  std::int32_t max_q_len_ = 0;
  std::int32_t max_k_len_ = 0;
  pagedkv::BatchTable table_;
};

}  // namespace llama
