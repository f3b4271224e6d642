// One sequence spread over three context-parallel ranks: each holds and attends over its own tokens, and
// merge_partials() gives what one rank alone would have found.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <new>
#include <span>
#include <vector>

#include "pagedkv/block_pool.h"
#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "pagedkv/error.h"
#include "toy_model.h"

namespace {

using namespace example;

constexpr int kTokens = 101;

/// Attention of the last token over the tokens that one rank owns.
struct Partial {
  std::vector<float> o = std::vector<float>(kQHeads * kHeadDim);  ///< [q_heads][head_dim]
  std::vector<float> lse = std::vector<float>(kQHeads);
};

Partial attend(const pagedkv::ContextParallel& cp) {
  pagedkv::CacheConfig config;
  config.kv_heads = kKvHeads;
  config.head_dim = kHeadDim;
  config.block_len = 16;
  config.dtype = pagedkv::DType::f32;
  pagedkv::BlockPool pool(make_layout(config), 8);
  pagedkv::SequenceBlocks sequence(pool);
  if (!sequence.append(local_tokens(cp, kTokens))) throw std::bad_alloc();
  const std::span<const pagedkv::BlockId> rows[] = {sequence.blocks()};
  const pagedkv::BatchTable table = make_batch_table(pool, rows);

  // Every rank is given all new tokens and stores those that it owns.
  Projections x;
  for (int i = 0; i < kTokens; ++i) x.add_token(0, i);
  const std::int32_t lengths[] = {0, kTokens};
  pagedkv::WriteKvArgs write;
  write.layout = pool.layout();
  write.table = table.by_index();
  write.batch = 1;
  write.cu_q = lengths;
  write.cu_k = lengths;
  write.k = x.k.data();
  write.v = x.v.data();
  write.strides = pagedkv::packed_strides(kKvHeads, kHeadDim);
  write.cp = cp;
  pagedkv::cpu::write_kv(write);

  Partial part;
  const std::int32_t last_token[] = {0, 1};
  pagedkv::DecodeArgs decode;
  decode.layout = pool.layout();
  decode.table = write.table;
  decode.batch = 1;
  decode.cu_q = last_token;
  decode.cu_k = lengths;
  decode.max_total_q = 1;
  decode.max_q_len = 1;
  decode.max_k_len = kTokens;
  decode.q_heads = kQHeads;
  decode.q = &x.q[(kTokens - 1) * kQHeads * kHeadDim];
  decode.q_strides = pagedkv::packed_strides(kQHeads, kHeadDim);
  decode.o = part.o.data();
  decode.o_strides = decode.q_strides;
  decode.o_is_f32 = true;
  decode.lse = part.lse.data();
  decode.cp = cp;
  WorkspaceMemory workspace(pagedkv::cpu::decode_workspace_bytes(decode));
  pagedkv::cpu::decode(decode, workspace);
  return part;
}

}  // namespace

int main() {
  try {
    constexpr int kRanks = 3;
    std::vector<float> o_parts;
    std::vector<float> lse_parts;
    for (int rank = 0; rank < kRanks; ++rank) {  // each on a machine of its own, in earnest
      const Partial part = attend({.rank = rank, .size = kRanks, .interleave = 4});
      o_parts.insert(o_parts.end(), part.o.begin(), part.o.end());
      lse_parts.insert(lse_parts.end(), part.lse.begin(), part.lse.end());
    }
    Partial merged;
    pagedkv::MergePartialsArgs merge;
    merge.parts = kRanks;
    merge.rows = kQHeads;
    merge.dim = kHeadDim;
    merge.o_parts = o_parts.data();
    merge.lse_parts = lse_parts.data();
    merge.o = merged.o.data();
    merge.lse = merged.lse.data();
    pagedkv::cpu::merge_partials(merge);

    const Partial whole = attend({});
    float difference = 0;
    for (std::size_t i = 0; i < whole.o.size(); ++i) {
      difference = std::max(difference, std::fabs(whole.o[i] - merged.o[i]));
    }
    std::printf("attention over %d ranks differs from one rank's by at most %g\n", kRanks,
                static_cast<double>(difference));
    return difference < 1e-6F ? 0 : 1;
  } catch (const pagedkv::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
