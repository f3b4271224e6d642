#pragma once
// rapidcheck generators of caches.

#include <rapidcheck.h>

#include <vector>

#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "support/cache.h"
#include "support/content.h"
#include "support/random.h"

namespace generate {

/// Block lengths that every configuration of config() can hold.
inline const std::vector<int>& block_lens() {
  static const std::vector<int> lens = {4, 16, 20, 64};
  return lens;
}

inline support::Random random() {
  return support::Random(*rc::gen::arbitrary<std::uint64_t>().as("seed"));
}

inline pagedkv::CacheConfig config() {
  using pagedkv::DType;
  using pagedkv::KvType;
  pagedkv::CacheConfig c;
  c.dtype = *rc::gen::element(DType::f16, DType::bf16, DType::f32).as("dtype");
  c.format.k = *rc::gen::element(KvType::same, KvType::int8, KvType::int4).as("format.k");
  c.format.v = *rc::gen::element(KvType::same, KvType::int8, KvType::int4).as("format.v");
  c.layers = *rc::gen::inRange(1, 4).as("layers");
  c.kv_heads = *rc::gen::inRange(1, 4).as("kv_heads");
  c.head_dim = *rc::gen::element(16, 64, 80, 96, 128, 192, 256).as("head_dim");
  c.shared_kv = *rc::gen::weightedElement<bool>({{7, false}, {1, true}}).as("shared_kv");
  if (c.shared_kv) {
    c.format.v = c.format.k;
    c.kv_heads = 1;
    c.head_dim = *rc::gen::element(128, 576).as("head_dim of the shared rows");
  }
  return c;
}

/// Lengths of a ragged batch: mostly short ones, zero, and the neighbours of block boundaries.
inline std::vector<int> lengths() {
  const auto boundary = rc::gen::map(rc::gen::pair(rc::gen::element(4, 16, 20, 32, 40, 64), rc::gen::inRange(-1, 2)),
                                     [](const std::pair<int, int>& p) { return p.first + p.second; });
  const auto length = rc::gen::weightedOneOf<int>({{1, rc::gen::just(0)}, {3, rc::gen::inRange(1, 30)}, {3, boundary}});
  const auto batch = *rc::gen::inRange<std::size_t>(1, 5).as("batch");
  return *rc::gen::container<std::vector<int>>(batch, length).as("lengths");
}

inline pagedkv::ContextParallel context_parallel() {
  pagedkv::ContextParallel cp;
  cp.size = *rc::gen::element(1, 2, 3, 4, 8).as("cp.size");
  cp.rank = *rc::gen::inRange(0, cp.size).as("cp.rank");
  cp.interleave = *rc::gen::element(1, 4, 16).as("cp.interleave");
  return cp;
}

inline support::WriteKv write_kv() {
  const int threads = *rc::gen::inRange(1, 4).as("threads of write_kv");
  return [threads](const pagedkv::WriteKvArgs& args) { pagedkv::cpu::write_kv(args, {threads}); };
}

inline support::FlattenKv flatten_kv() {
  const int threads = *rc::gen::inRange(1, 4).as("threads of flatten_kv");
  return [threads](const pagedkv::FlattenKvArgs& args) { pagedkv::cpu::flatten_kv(args, {threads}); };
}

}  // namespace generate
