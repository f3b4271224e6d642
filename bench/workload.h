#pragma once
// A batch of random keys, values and queries in a cache with shuffled blocks, and the operations on it.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "pagedkv/block_pool.h"
#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "pagedkv/ops.h"

namespace bench {

/// Host memory, 256-byte aligned.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes);
  void* data() const { return data_.get(); }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(data_.get()), bytes_}; }

 private:
  struct Free {
    void operator()(void* p) const noexcept { std::free(p); }
  };
  std::unique_ptr<void, Free> data_;
  std::size_t bytes_;
};

struct Shape {
  pagedkv::CacheConfig config;  ///< one layer
  std::int32_t q_heads = 32;
  std::int32_t batch = 1;
  std::int32_t context = 16384;  ///< tokens of every sequence, the new ones included
  std::int32_t q_len = 512;      ///< new tokens of a prefill
  std::int32_t threads = 1;
};

class Workload {
 public:
  explicit Workload(const Shape& shape);

  void write();    ///< all tokens of all sequences, RoPE on keys
  void flatten();  ///< all tokens of all sequences
  void decode();   ///< one new token of each sequence, over all its tokens
  void prefill();  ///< q_len new tokens of each sequence, over all its tokens

  /// Bytes that an operation has to move: each input once, each output once.
  double write_bytes() const;
  double flatten_bytes() const;
  double decode_bytes() const;
  /// 4 head_dim per query head, new token and key that it sees.
  double prefill_flop() const;

  /// Puts everything that the operations touch out of the CPU's caches.
  void evict() const;

 private:
  std::size_t tokens() const;
  std::size_t kv_bytes() const;
  std::size_t query_bytes(std::int32_t q_len) const;
  std::size_t cache_bytes() const;
  pagedkv::AttentionArgs attention(const std::vector<std::int32_t>& cu_q, std::int32_t q_len) const;

  Shape shape_;
  pagedkv::BlockLayout layout_;
  pagedkv::BlockPool pool_;
  pagedkv::BatchTable table_;
  std::vector<std::int32_t> cu_all_;      // 0, context, 2 context, ...: k_len, and q_len of a write
  std::vector<std::int32_t> cu_decode_;   // 0, 1, 2, ...
  std::vector<std::int32_t> cu_prefill_;  // 0, q_len, 2 q_len, ...
  pagedkv::core::RopeTable rope_;
  Buffer k_, v_, flat_k_, flat_v_, q_, o_;
  pagedkv::DecodeArgs decode_;
  pagedkv::PrefillArgs prefill_;
  Buffer decode_workspace_, prefill_workspace_;
};

}  // namespace bench
