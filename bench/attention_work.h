#pragma once
// Attention calls over a cache that is larger than the processor's caches: the layers of a model, one after the other.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "pagedkv/ops.h"

namespace bench {

struct AttentionShape {
  pagedkv::DType dtype = pagedkv::DType::f16;
  pagedkv::KvFormat format;
  int batch = 1;
  int q_heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  int block_len = 64;
  int q_len = 1;
  int k_len = 16384;
  int layers = 1;
  int threads = 1;
};

std::string format_name(pagedkv::DType dtype, pagedkv::KvFormat format);

/// A filled cache, queries and workspace. Blocks lie in memory in a random order.
class AttentionWork {
 public:
  explicit AttentionWork(const AttentionShape& shape);

  /// One call on the next layer; seconds.
  double run();

  double cache_bytes_read() const;  ///< keys, values and parameters of one layer, once
  double flop() const;              ///< 4 head_dim per query head, new token and key it sees

 private:
  AttentionShape shape_;
  pagedkv::BlockLayout layout_;
  std::vector<char> slab_;
  std::vector<char> q_;
  std::vector<char> o_;
  std::vector<char> workspace_;
  std::vector<std::int32_t> indices_;
  std::vector<std::int32_t> cu_q_;
  std::vector<std::int32_t> cu_k_;
  pagedkv::AttentionArgs args_;
  pagedkv::Workspace memory_;
};

}  // namespace bench
