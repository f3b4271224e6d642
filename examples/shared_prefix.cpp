// Three continuations of one prompt that share its blocks, next to three that do not: fewer blocks, the same bits.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "pagedkv/block_pool.h"
#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "pagedkv/error.h"
#include "toy_model.h"

namespace {

using namespace example;

constexpr int kPromptTokens = 100;
constexpr int kNewTokens = 20;

/// A sequence as an engine keeps it.
struct Request {
  int name;
  pagedkv::SequenceBlocks blocks;
};

/// Makes room for `count` more tokens of each request. False if the pool has too few free blocks: an engine would take
/// the blocks of some request away and compute it again later.
bool make_room(pagedkv::BlockPool& pool, std::vector<Request>& batch, int count) {
  for (Request& r : batch) {
    const auto appended = r.blocks.append(count);
    if (!appended) return false;
    if (appended->copy) {
      // The last block is partly filled and shared: from here on this request has its own.
      std::memcpy(pool.address(appended->copy->to), pool.address(appended->copy->from),
                  static_cast<std::size_t>(pool.layout().block_bytes));
    }
  }
  return true;
}

/// Writes keys and values of the last `count` tokens of each request, and returns what attention gives for them,
/// [tokens][q_heads][head_dim].
std::vector<float> forward(const pagedkv::BlockPool& pool, const std::vector<Request>& batch, int count) {
  Projections x;
  std::vector<std::int32_t> cu_q{0};
  std::vector<std::int32_t> cu_k{0};
  std::vector<std::span<const pagedkv::BlockId>> rows;
  std::int32_t longest = 0;
  for (const Request& r : batch) {
    for (int i = r.blocks.tokens() - count; i < r.blocks.tokens(); ++i) {
      x.add_token(i < kPromptTokens ? 0 : r.name, i);
    }
    cu_q.push_back(cu_q.back() + count);
    cu_k.push_back(cu_k.back() + r.blocks.tokens());
    rows.push_back(r.blocks.blocks());
    longest = std::max(longest, r.blocks.tokens());
  }
  const pagedkv::BatchTable table = make_batch_table(pool, rows);

  pagedkv::WriteKvArgs write;
  write.layout = pool.layout();
  write.table = table.by_index();
  write.batch = static_cast<std::int32_t>(batch.size());
  write.cu_q = cu_q.data();
  write.cu_k = cu_k.data();
  write.k = x.k.data();
  write.v = x.v.data();
  write.strides = pagedkv::packed_strides(kKvHeads, kHeadDim);
  pagedkv::cpu::write_kv(write);

  std::vector<float> out(x.q.size());
  pagedkv::PrefillArgs attend;
  attend.layout = pool.layout();
  attend.table = write.table;
  attend.batch = write.batch;
  attend.cu_q = cu_q.data();
  attend.cu_k = cu_k.data();
  attend.max_total_q = cu_q.back();
  attend.max_q_len = count;
  attend.max_k_len = longest;
  attend.q_heads = kQHeads;
  attend.q = x.q.data();
  attend.q_strides = pagedkv::packed_strides(kQHeads, kHeadDim);
  attend.o = out.data();
  attend.o_strides = attend.q_strides;
  WorkspaceMemory workspace(pagedkv::cpu::prefill_workspace_bytes(attend));
  pagedkv::cpu::prefill(attend, workspace);
  return out;
}

struct Result {
  int blocks = 0;
  std::vector<float> out;  ///< of the last token of each continuation
};

Result generate(bool share) {
  pagedkv::CacheConfig config;
  config.kv_heads = kKvHeads;
  config.head_dim = kHeadDim;
  config.block_len = 16;
  config.dtype = pagedkv::DType::f32;
  config.format = {pagedkv::KvType::int8, pagedkv::KvType::int4};
  pagedkv::BlockPool pool(make_layout(config), 64);

  std::vector<Request> batch;
  for (int name = 1; name <= 3; ++name) {
    if (share && name > 1) {
      batch.push_back({name, batch[0].blocks.fork(kPromptTokens)});
      continue;
    }
    std::vector<Request> prompt;
    prompt.push_back({name, pagedkv::SequenceBlocks(pool)});
    if (!make_room(pool, prompt, kPromptTokens)) return {};
    forward(pool, prompt, kPromptTokens);
    batch.push_back(std::move(prompt[0]));
  }
  Result result;
  for (int i = 0; i < kNewTokens; ++i) {
    if (!make_room(pool, batch, 1)) return {};
    result.out = forward(pool, batch, 1);
  }
  result.blocks = pool.used_blocks();
  return result;
}

}  // namespace

int main() {
  try {
    const Result shared = generate(true);
    const Result apart = generate(false);
    const bool same = !shared.out.empty() && shared.out == apart.out;
    std::printf("three continuations of a prompt: %d blocks when they share it, %d when they do not; outputs %s\n",
                shared.blocks, apart.blocks, same ? "equal" : "DIFFER");
    return same && shared.blocks < apart.blocks ? 0 : 1;
  } catch (const pagedkv::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
