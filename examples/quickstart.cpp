// One sequence of 100 tokens, one layer: its keys and values go into an int8 cache, and a query attends over them.
#include <cstdio>
#include <span>
#include <vector>

#include "pagedkv/block_table.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"

using namespace pagedkv;

int main() {
  const int tokens = 100, q_heads = 8, kv_heads = 2, dim = 64;
  const KvFormat format{KvType::int8, KvType::int8};
  const BlockLayout layout = make_layout({1, kv_heads, dim, /*block_len=*/64, DType::f32, format});
  BlockPool pool(layout, /*blocks=*/16);
  SequenceBlocks sequence(pool);
  if (!sequence.append(tokens)) return 1;  // no free block
  const std::span<const BlockId> batch[] = {sequence.blocks()};
  const BatchTable table = make_batch_table(pool, batch);

  std::vector<float> k(tokens * kv_heads * dim, 0.5F), v(k.size(), 0.25F);
  const int cu_k[] = {0, tokens}, cu_q[] = {0, 1};  // 100 tokens in all, one of them the query
  WriteKvArgs write{.layout = layout, .table = table.by_index(), .batch = 1, .cu_q = cu_k, .cu_k = cu_k};
  write.k = k.data(), write.v = v.data(), write.strides = packed_strides(kv_heads, dim);
  write.rope = make_rope_table({.type = RopeType::standard, .dim = dim}, dim);
  cpu::write_kv(write);

  std::vector<float> q(q_heads * dim, 1.0F), o(q.size());
  DecodeArgs args{.layout = layout, .table = table.by_index(), .batch = 1, .cu_q = cu_q, .cu_k = cu_k};
  args.max_total_q = 1, args.max_q_len = 1, args.max_k_len = tokens, args.q_heads = q_heads;
  args.q = q.data(), args.q_strides = packed_strides(q_heads, dim);
  args.o = o.data(), args.o_strides = args.q_strides;
  struct alignas(256) Chunk {
    char bytes[256];
  };
  std::vector<Chunk> workspace(cpu::decode_workspace_bytes(args) / sizeof(Chunk) + 1);
  cpu::decode(args, {workspace.data(), workspace.size() * sizeof(Chunk)});
  std::printf("%d tokens of %d bytes: %g\n", tokens, int(layout.block_bytes / 64), double(o[0]));
  return o[0] == 0.25F ? 0 : 1;  // the weights sum to one, and every value is 0.25
}
