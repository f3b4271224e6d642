#pragma once
// Operations with good arguments, each small enough to be set up anew for every spoilt one.

#include <cstdint>
#include <string>
#include <vector>

#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "support/memory.h"

namespace bad_arguments {

inline constexpr int kHeads = 2;
inline constexpr int kDim = 64;
inline constexpr int kBlocks = 3;
inline constexpr int kNewTokens = 5;
inline constexpr int kTokens = 12;

inline pagedkv::CacheConfig small_config() {
  pagedkv::CacheConfig c;
  c.layers = 2;
  c.kv_heads = kHeads;
  c.head_dim = kDim;
  c.block_len = 8;
  c.format = {pagedkv::KvType::int8, pagedkv::KvType::int4};
  return c;
}

/// Two sequences: 10 tokens of which 3 are new, and 2 tokens, both new. With RoPE.
struct Sequences {
  std::vector<std::int32_t> cu_q = {0, 3, 5};
  std::vector<std::int32_t> cu_k = {0, 10, 12};
  std::vector<float> rope_base = {1e4F, 1e4F};
  std::vector<std::int32_t> rope_ids = std::vector<std::int32_t>(3 * kTokens, 5);
  std::vector<std::int32_t> rope_offsets = {0, 3};
  std::vector<std::int32_t> rope_lengths = {2, 1};
  std::vector<std::int32_t> rope_delta = {0, 1};
  pagedkv::cpu::Exec exec{1};

  Sequences() = default;
  Sequences(const Sequences&) = delete;
  Sequences& operator=(const Sequences&) = delete;

  pagedkv::RopeParams rope_params() const {
    pagedkv::RopeParams p;
    p.type = pagedkv::RopeType::standard;
    p.dim = 32;
    p.mrope = pagedkv::MropeMode::chunked;
    p.mrope_section[0] = 8;
    p.mrope_section[1] = 5;
    p.mrope_section[2] = 3;
    p.mrope_length = rope_lengths.data();
    p.mrope_offsets = rope_offsets.data();
    p.mrope_position_ids = rope_ids.data();
    p.mrope_delta = rope_delta.data();
    return p;
  }
  pagedkv::core::RopeTable rope_table() const { return make_rope_table(rope_params(), kDim); }
};

/// The sequences in a cache: the first in blocks 2 and 0, the second in block 1.
template <class Args>
struct CacheFixture : Sequences {
  support::Poisoned slab{static_cast<std::size_t>(kBlocks * make_layout(small_config()).block_bytes)};
  std::vector<std::int32_t> indices = {2, 0, 1};
  std::vector<char*> pointers;
  std::vector<std::int32_t> cu_blocks = {0, 2, 3};
  Args args;

  CacheFixture() {
    args.layout = make_layout(small_config());
    args.layer = 1;
    args.table.indices = indices.data();
    args.table.slab = slab.data();
    args.table.slab_blocks = kBlocks;
    args.table.cu_blocks = cu_blocks.data();
    args.batch = 2;
    args.cu_k = cu_k.data();
  }

  void use_pointers() {
    for (const std::int32_t i : indices) pointers.push_back(slab.data() + i * args.layout.block_bytes);
    args.table = {};
    args.table.pointers = pointers.data();
    args.table.cu_blocks = cu_blocks.data();
  }
  void use_rows() {
    indices = {2, 0, 1, 1};
    args.table.indices = indices.data();
    args.table.cu_blocks = nullptr;
    args.table.row_stride = 2;
  }
};

struct WriteFixture : CacheFixture<pagedkv::WriteKvArgs> {
  support::Tensor k{oracle::Type::f16, std::vector<double>(kNewTokens* kHeads* kDim, 1.0)};
  support::Tensor v{oracle::Type::f16, std::vector<double>(kNewTokens* kHeads* kDim, 2.0)};
  support::Tensor bias{oracle::Type::f16, std::vector<double>(kHeads* kDim, 0.5)};
  std::vector<std::int32_t> readonly = {0, 0};

  WriteFixture() {
    args.cu_q = cu_q.data();
    args.max_total_q = kNewTokens;
    args.k = k.at(0);
    args.v = v.at(0);
    args.strides = pagedkv::packed_strides(kHeads, kDim);
    args.k_bias = bias.at(0);
    args.v_bias = bias.at(0);
    args.rope = rope_table();
    args.readonly_blocks = readonly.data();
  }
  void run() { pagedkv::cpu::write_kv(args, exec); }
  std::string why_touched() const { return slab.why_touched(); }
};

struct FlattenFixture : CacheFixture<pagedkv::FlattenKvArgs> {
  support::Tensor k{oracle::Type::f16, kTokens* kHeads* kDim};
  support::Tensor v{oracle::Type::f16, kTokens* kHeads* kDim};

  FlattenFixture() {
    args.max_total_k = kTokens;
    args.k = k.at(0);
    args.v = v.at(0);
    args.strides = pagedkv::packed_strides(kHeads, kDim);
    args.rope = rope_table();
  }
  void run() { pagedkv::cpu::flatten_kv(args, exec); }
  std::string why_touched() const { return k.memory().why_touched() + v.memory().why_touched(); }
};

struct ApplyRopeFixture : Sequences {
  support::Tensor x{oracle::Type::f16, std::vector<double>(kNewTokens* kHeads* kDim, 1.0)};
  support::Tensor y{oracle::Type::f16, kNewTokens* kHeads* kDim};
  support::Tensor bias{oracle::Type::f16, std::vector<double>(kHeads* kDim, 0.5)};
  pagedkv::ApplyRopeArgs args;

  ApplyRopeFixture() {
    args.heads = kHeads;
    args.head_dim = kDim;
    args.batch = 2;
    args.cu_q = cu_q.data();
    args.cu_k = cu_k.data();
    args.max_total_q = kNewTokens;
    args.x = x.at(0);
    args.x_strides = pagedkv::packed_strides(kHeads, kDim);
    args.y = y.at(0);
    args.y_strides = args.x_strides;
    args.bias = bias.at(0);
    args.rope = rope_table();
  }
  void run() { pagedkv::cpu::apply_rope(args, exec); }
  std::string why_touched() const { return y.memory().why_touched(); }
};

inline constexpr int kQHeads = 4;

/// decode() or prefill() of the new tokens.
template <bool Decode>
struct AttentionFixture : CacheFixture<pagedkv::AttentionArgs> {
  support::Tensor q{oracle::Type::f16, std::vector<double>(kNewTokens* kQHeads* kDim, 1.0)};
  support::Tensor o{oracle::Type::f16, kNewTokens* kQHeads* kDim};
  support::Tensor lse{oracle::Type::f32, kNewTokens* kQHeads};
  std::vector<float> sinks = std::vector<float>(kQHeads, 0.0F);
  std::vector<char> memory;
  pagedkv::Workspace workspace;

  AttentionFixture() {
    args.cu_q = cu_q.data();
    args.max_total_q = kNewTokens;
    args.max_q_len = 3;
    args.max_k_len = 10;
    args.q_heads = kQHeads;
    args.q = q.at(0);
    args.q_strides = pagedkv::packed_strides(kQHeads, kDim);
    args.o = o.at(0);
    args.o_strides = args.q_strides;
    args.lse = reinterpret_cast<float*>(lse.at(0));
    args.sinks = sinks.data();
    const std::size_t bytes =
        Decode ? pagedkv::cpu::decode_workspace_bytes(args, exec) : pagedkv::cpu::prefill_workspace_bytes(args, exec);
    memory.resize(bytes + kAlignment);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    workspace = {memory.data() + (kAlignment - address % kAlignment), bytes};
  }
  /// A layout whose rows are key and value.
  void use_shared_rows() {
    pagedkv::CacheConfig c = small_config();
    c.format = {pagedkv::KvType::int8, pagedkv::KvType::int8};
    c.shared_kv = true;
    args.layout = make_layout(c);
  }
  void run() {
    if (Decode) {
      pagedkv::cpu::decode(args, workspace, exec);
    } else {
      pagedkv::cpu::prefill(args, workspace, exec);
    }
  }
  std::string why_touched() const { return o.memory().why_touched() + lse.memory().why_touched(); }

 private:
  static constexpr std::size_t kAlignment = 256;
};

/// decode() that writes the new tokens and prepares the queries.
struct FusedFixture : AttentionFixture<true> {
  support::Tensor k{oracle::Type::f16, std::vector<double>(kNewTokens* kHeads* kDim, 1.0)};
  support::Tensor v{oracle::Type::f16, std::vector<double>(kNewTokens* kHeads* kDim, 2.0)};
  support::Tensor bias{oracle::Type::f16, std::vector<double>(kQHeads* kDim, 0.5)};
  std::vector<std::int32_t> readonly = {0, 0};

  FusedFixture() {
    args.fuse_write = {k.at(0),    v.at(0),    pagedkv::packed_strides(kHeads, kDim),
                       bias.at(0), bias.at(0), readonly.data()};
    args.rope = rope_table();
    args.rotate_q = true;
    args.q_bias = bias.at(0);
    const std::size_t bytes = pagedkv::cpu::decode_workspace_bytes(args, exec);
    own_memory = support::Poisoned(bytes + 256);
    const auto address = reinterpret_cast<std::uintptr_t>(own_memory.data());
    workspace = {own_memory.data() + (256 - address % 256), bytes};
  }
  std::string why_touched() const { return AttentionFixture<true>::why_touched() + slab.why_touched(); }

 private:
  support::Poisoned own_memory{0};
};

struct MergeFixture {
  static constexpr int kParts = 2;
  static constexpr int kRows = 3;
  support::Tensor o_parts{oracle::Type::f32, std::vector<double>(kParts* kRows* kDim, 1.0)};
  support::Tensor lse_parts{oracle::Type::f32, std::vector<double>(kParts* kRows, 0.0)};
  support::Tensor o{oracle::Type::f16, kRows* kDim};
  support::Tensor lse{oracle::Type::f32, kRows};
  pagedkv::MergePartialsArgs args;
  pagedkv::cpu::Exec exec{1};

  MergeFixture() {
    args.parts = kParts;
    args.rows = kRows;
    args.dim = kDim;
    args.dtype = pagedkv::DType::f16;
    args.o_parts = reinterpret_cast<const float*>(o_parts.at(0));
    args.lse_parts = reinterpret_cast<const float*>(lse_parts.at(0));
    args.o = o.at(0);
    args.lse = reinterpret_cast<float*>(lse.at(0));
  }
  void run() { pagedkv::cpu::merge_partials(args, exec); }
  std::string why_touched() const { return o.memory().why_touched() + lse.memory().why_touched(); }
};

}  // namespace bad_arguments
