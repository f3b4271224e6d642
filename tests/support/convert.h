#pragma once
// The library's types as the oracle's.

#include "oracle/layout.h"
#include "oracle/number.h"
#include "pagedkv/cache_config.h"

namespace support {

inline oracle::Type to_oracle(pagedkv::DType t) {
  return t == pagedkv::DType::f32   ? oracle::Type::f32
         : t == pagedkv::DType::f16 ? oracle::Type::f16
                                    : oracle::Type::bf16;
}

inline oracle::Stored to_oracle(pagedkv::KvType k) {
  return k == pagedkv::KvType::int8   ? oracle::Stored::int8
         : k == pagedkv::KvType::int4 ? oracle::Stored::int4
                                      : oracle::Stored::same;
}

inline oracle::Shape to_oracle(const pagedkv::CacheConfig& c) {
  return {
      to_oracle(c.dtype), to_oracle(c.format.k), to_oracle(c.format.v), c.shared_kv, c.layers, c.kv_heads, c.head_dim,
      c.block_len};
}

}  // namespace support
