#pragma once
// Arguments that several operations share, spoilt. F is a fixture of bad_arguments_fixtures.h.

#include <limits>
#include <string>

#include "ops/bad_arguments.h"
#include "ops/bad_arguments_fixtures.h"

namespace bad_arguments {

/// What every operation on a cache takes: layout, layer, block table, cp, batch and cu_k.
template <class F>
Table cache_arguments(const std::string& owner) {
  const std::string l = owner + ".layout.";
  const std::string t = owner + ".table.";
  const std::string computed = ", as make_layout() computes it";
  return {
      bad<F>(l + "dtype", "99", "f32, f16 or bf16", [](F& f) { f.args.layout.dtype = no_such<pagedkv::DType>(); }),
      bad<F>(l + "format.k", "99", "same, int8 or int4",
             [](F& f) { f.args.layout.format.k = no_such<pagedkv::KvType>(); }),
      bad<F>(l + "format.v", "99", "same, int8 or int4",
             [](F& f) { f.args.layout.format.v = no_such<pagedkv::KvType>(); }),
      bad<F>(l + "layout", "99", "turbomind", [](F& f) { f.args.layout.kind = no_such<pagedkv::LayoutKind>(); }),
      bad<F>(l + "format.v", "int4", "int8, the type of the keys, because shared_kv stores one row for both",
             [](F& f) { f.args.layout.shared_kv = true; }),
      bad<F>(l + "layers", "0", "1 .. 65536", [](F& f) { f.args.layout = {}; }),
      bad<F>(l + "kv_heads", "0", "1 .. 65536", [](F& f) { f.args.layout.kv_heads = 0; }),
      bad<F>(l + "head_dim", "72", "a multiple of 16", [](F& f) { f.args.layout.head_dim = 72; }),
      bad<F>(l + "block_len", "0", "1 .. 65536", [](F& f) { f.args.layout.block_len = 0; }),
      bad<F>(l + "block_len", "6", "a multiple of 4, so that each region of this format starts 16-byte aligned",
             [](F& f) { f.args.layout.block_len = 6; }),
      bad<F>(l + "k_row_bytes", "65", "64" + computed, [](F& f) { ++f.args.layout.k_row_bytes; }),
      bad<F>(l + "v_row_bytes", "33", "32" + computed, [](F& f) { ++f.args.layout.v_row_bytes; }),
      bad<F>(l + "k_param_bytes", "5", "4" + computed, [](F& f) { ++f.args.layout.k_param_bytes; }),
      bad<F>(l + "v_param_bytes", "5", "4" + computed, [](F& f) { ++f.args.layout.v_param_bytes; }),
      bad<F>(l + "head_data_bytes", "769", "768" + computed, [](F& f) { ++f.args.layout.head_data_bytes; }),
      bad<F>(l + "head_param_bytes", "65", "64" + computed, [](F& f) { ++f.args.layout.head_param_bytes; }),
      bad<F>(l + "param_offset", "1537", "1536" + computed, [](F& f) { ++f.args.layout.param_offset; }),
      bad<F>(l + "layer_bytes", "1665", "1664" + computed, [](F& f) { ++f.args.layout.layer_bytes; }),
      bad<F>(l + "block_bytes", "3329", "3328" + computed, [](F& f) { ++f.args.layout.block_bytes; }),
      bad<F>(owner + ".layer", "-1", "0 .. 1", [](F& f) { f.args.layer = -1; }),
      bad<F>(owner + ".layer", "2", "0 .. 1", [](F& f) { f.args.layer = 2; }),

      bad<F>(t + "pointers", "null", "exactly one of table.pointers and table.indices; both are null",
             [](F& f) { f.args.table.indices = nullptr; }),
      bad<F>(t + "pointers", "*", "exactly one of table.pointers and table.indices; both are set",
             [](F& f) {
               f.use_pointers();
               f.args.table.indices = f.indices.data();
             }),
      bad<F>(t + "pointers", "*", "null or an address aligned to 8 bytes",
             [](F& f) {
               f.use_pointers();
               f.args.table.pointers = misaligned(f.args.table.pointers);
             }),
      bad<F>(t + "pointers[1]", "null", "a block address aligned to 16 bytes (sequence 0, logical block 1)",
             [](F& f) {
               f.use_pointers();
               f.pointers[1] = nullptr;
             }),
      bad<F>(t + "pointers[2]", "*", "a block address aligned to 16 bytes (sequence 1, logical block 0)",
             [](F& f) {
               f.use_pointers();
               f.pointers[2] += 8;
             }),
      bad<F>(t + "indices", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.table.indices = misaligned(f.args.table.indices); }),
      bad<F>(t + "indices[1]", "-1", "0 .. 2 (sequence 0, logical block 1)", [](F& f) { f.indices[1] = -1; }),
      bad<F>(t + "indices[2]", "3", "0 .. 2 (sequence 1, logical block 0)", [](F& f) { f.indices[2] = 3; }),
      bad<F>(t + "slab", "null", "an address aligned to 16 bytes", [](F& f) { f.args.table.slab = nullptr; }),
      bad<F>(t + "slab", "*", "an address aligned to 16 bytes", [](F& f) { f.args.table.slab += 8; }),
      bad<F>(t + "slab_blocks", "0", "1 .. 2147483647", [](F& f) { f.args.table.slab_blocks = 0; }),
      bad<F>(t + "indices[0]", "2", "0 .. 1 (sequence 0, logical block 0)", [](F& f) { f.args.table.slab_blocks = 2; }),
      bad<F>(t + "cu_blocks", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.table.cu_blocks = misaligned(f.args.table.cu_blocks); }),
      bad<F>(t + "cu_blocks[0]", "-1", "at least 0", [](F& f) { f.cu_blocks[0] = -1; }),
      bad<F>(t + "cu_blocks[2]", "1", "at least table.cu_blocks[1] = 2", [](F& f) { f.cu_blocks[2] = 1; }),
      bad<F>(t + "cu_blocks[1]", "1", "at least cu_blocks[0] + 2 = 2, the blocks that sequence 0 needs",
             [](F& f) { f.cu_blocks[1] = 1; }),
      bad<F>(t + "row_stride", "-1", "at least 0",
             [](F& f) {
               f.use_rows();
               f.args.table.row_stride = -1;
             }),
      bad<F>(t + "row_stride", "1", "at least 2, the blocks that sequence 0 needs",
             [](F& f) {
               f.use_rows();
               f.args.table.row_stride = 1;
             }),

      bad<F>(owner + ".cp.size", "0", "1 .. 65536", [](F& f) { f.args.cp.size = 0; }),
      bad<F>(owner + ".cp.rank", "-1", "0 .. 0", [](F& f) { f.args.cp.rank = -1; }),
      bad<F>(owner + ".cp.rank", "2", "0 .. 1",
             [](F& f) {
               f.args.cp.size = 2;
               f.args.cp.rank = 2;
             }),
      bad<F>(owner + ".cp.interleave", "0", "1 .. 1073741824", [](F& f) { f.args.cp.interleave = 0; }),
      bad<F>(owner + ".batch", "-1", "0 .. 65536", [](F& f) { f.args.batch = -1; }),
      bad<F>(owner + ".batch", "65537", "0 .. 65536", [](F& f) { f.args.batch = 65537; }),
      bad<F>(owner + ".cu_k", "null", "an address aligned to 4 bytes", [](F& f) { f.args.cu_k = nullptr; }),
      bad<F>(owner + ".cu_k", "*", "an address aligned to 4 bytes",
             [](F& f) { f.args.cu_k = misaligned(f.args.cu_k); }),
      bad<F>(owner + ".cu_k[0]", "-1", "at least 0", [](F& f) { f.cu_k[0] = -1; }),
      bad<F>(owner + ".cu_k[2]", "9", "at least cu_k[1] = 10", [](F& f) { f.cu_k[2] = 9; }),
  };
}

/// How the operation runs.
template <class F>
Table exec_arguments() {
  return {
      bad<F>("Exec.threads", "-1", "0 .. 4096", [](F& f) { f.exec.threads = -1; }),
      bad<F>("Exec.threads", "4097", "0 .. 4096", [](F& f) { f.exec.threads = 4097; }),
  };
}

/// New tokens: cu_q, and k_len >= q_len.
template <class F>
Table new_token_arguments(const std::string& owner) {
  return {
      bad<F>(owner + ".cu_q", "null", "an address aligned to 4 bytes", [](F& f) { f.args.cu_q = nullptr; }),
      bad<F>(owner + ".cu_q", "*", "an address aligned to 4 bytes",
             [](F& f) { f.args.cu_q = misaligned(f.args.cu_q); }),
      bad<F>(owner + ".cu_q[0]", "-2", "at least 0", [](F& f) { f.cu_q[0] = -2; }),
      bad<F>(owner + ".cu_q[1]", "-1", "at least cu_q[0] = 0", [](F& f) { f.cu_q[1] = -1; }),
      bad<F>(owner + ".cu_k[1]", "2", "at least cu_k[0] + q_len = 3, because sequence 0 has q_len 3",
             [](F& f) { f.cu_k[1] = 2; }),
  };
}

template <class F>
Table rope_arguments(const std::string& owner) {
  const std::string r = owner + ".rope.";
  return {
      bad<F>(r + "pairs", "99", "interleaved or half_split",
             [](F& f) { f.args.rope.pairs = no_such<pagedkv::RopePairs>(); }),
      bad<F>(r + "dim", "-8", "0 .. 64", [](F& f) { f.args.rope.dim = -8; }),
      bad<F>(r + "dim", "72", "0 .. 64", [](F& f) { f.args.rope.dim = 72; }),
      bad<F>(r + "dim", "20", "a multiple of 8", [](F& f) { f.args.rope.dim = 20; }),
      bad<F>(r + "dim", "24", "a multiple of 16",
             [](F& f) {
               f.args.rope.pairs = pagedkv::RopePairs::half_split;
               f.args.rope.dim = 24;
             }),
      bad<F>(r + "attention_factor", "inf", "a finite number",
             [](F& f) { f.args.rope.attention_factor = std::numeric_limits<float>::infinity(); }),
      bad<F>(r + "base", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.rope.base = misaligned(f.rope_base.data()); }),
      bad<F>(r + "base[1]", "0.5", "a finite number, at least 1",
             [](F& f) {
               f.rope_base[1] = 0.5F;
               f.args.rope.base = f.rope_base.data();
             }),
      bad<F>(r + "mrope", "99", "none, chunked or interleaved",
             [](F& f) { f.args.rope.mrope = no_such<pagedkv::MropeMode>(); }),
      bad<F>(r + "mrope_section[1]", "-1", "0 .. 16", [](F& f) { f.args.rope.mrope_section[1] = -1; }),
      bad<F>(r + "mrope_section", "a sum of 17", "a sum of 16, dim / 2",
             [](F& f) { f.args.rope.mrope_section[1] = 6; }),
      bad<F>(r + "mrope_length", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.rope.mrope_length = misaligned(f.args.rope.mrope_length); }),
      bad<F>(r + "mrope_length[1]", "-3", "at least 0", [](F& f) { f.rope_lengths[1] = -3; }),
      bad<F>(r + "mrope_delta", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.rope.mrope_delta = misaligned(f.args.rope.mrope_delta); }),
      bad<F>(r + "mrope_offsets", "null", "an address aligned to 4 bytes",
             [](F& f) { f.args.rope.mrope_offsets = nullptr; }),
      bad<F>(r + "mrope_offsets[0]", "-1", "at least 0", [](F& f) { f.rope_offsets[0] = -1; }),
      bad<F>(r + "mrope_position_ids", "null", "an address aligned to 4 bytes",
             [](F& f) { f.args.rope.mrope_position_ids = nullptr; }),
  };
}

/// The four strides of one TokenStrides.
template <class F>
Table stride_arguments(const std::string& owner, const std::string& field, pagedkv::TokenStrides& (*strides)(F&)) {
  const std::string accepted = "a multiple of 8 elements";
  const std::string s = owner + "." + field + ".";
  return {
      bad<F>(s + "batch", "4", accepted, [=](F& f) { strides(f).batch = 4; }),
      bad<F>(s + "start", "12", accepted, [=](F& f) { strides(f).start = 12; }),
      bad<F>(s + "token", "-1", accepted, [=](F& f) { strides(f).token = -1; }),
      bad<F>(s + "head", "65", accepted, [=](F& f) { strides(f).head = 65; }),
  };
}

/// What decode() takes for the new tokens and the queries besides attention.
template <class F>
Table fused_arguments() {
  const std::string o = "AttentionArgs.";
  const std::string w = o + "fuse_write.";
  const std::string address = "an address aligned to 16 bytes";
  Table table = {
      bad<F>(w + "k", "*", address, [](F& f) { f.args.fuse_write.k = f.k.at(4); }),
      bad<F>(w + "v", "*", "null without fuse_write.k", [](F& f) { f.args.fuse_write.k = nullptr; }),
      bad<F>(w + "v", "null", address, [](F& f) { f.args.fuse_write.v = nullptr; }),
      bad<F>(w + "v", "*", address, [](F& f) { f.args.fuse_write.v = f.v.at(4); }),
      bad<F>(w + "k_bias", "*", "null or " + address, [](F& f) { f.args.fuse_write.k_bias = f.bias.at(4); }),
      bad<F>(w + "v_bias", "*", "null or " + address, [](F& f) { f.args.fuse_write.v_bias = f.bias.at(4); }),
      bad<F>(w + "readonly_blocks", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.fuse_write.readonly_blocks = misaligned(f.readonly.data()); }),
      bad<F>(w + "readonly_blocks[1]", "-1", "at least 0", [](F& f) { f.readonly[1] = -1; }),
      bad<F>(o + "q_bias", "*", "null or " + address, [](F& f) { f.args.q_bias = f.bias.at(4); }),
  };
  for (const Table& more :
       {stride_arguments<F>("AttentionArgs", "fuse_write.strides",
                            [](F& f) -> pagedkv::TokenStrides& { return f.args.fuse_write.strides; }),
        rope_arguments<F>("AttentionArgs")}) {
    table.insert(table.end(), more.begin(), more.end());
  }
  return table;
}

}  // namespace bad_arguments
