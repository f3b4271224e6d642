// The walk through the arguments of decode, prefill and merge_partials.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "ops/bad_arguments.h"
#include "ops/bad_arguments_fixtures.h"
#include "ops/bad_arguments_tables.h"

namespace {

using namespace bad_arguments;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const std::string kOwner = "AttentionArgs.";

template <class F>
void expect_errors_of_both() {
  expect_good<F>();
  expect_errors(exec_arguments<F>());
  expect_errors(cache_arguments<F>("AttentionArgs"));
  expect_errors(new_token_arguments<F>("AttentionArgs"));
  expect_errors(stride_arguments<F>("AttentionArgs", "q_strides",
                                    [](F& f) -> pagedkv::TokenStrides& { return f.args.q_strides; }));
  expect_errors(stride_arguments<F>("AttentionArgs", "o_strides",
                                    [](F& f) -> pagedkv::TokenStrides& { return f.args.o_strides; }));
  const std::string address = "an address aligned to 16 bytes";
  const std::string scale = "a finite number above 0, or 0 for 1 / sqrt(head_dim)";
  const std::string softcap = "a finite number above 0, or 0 for none";
  expect_errors({
      bad<F>(kOwner + "max_total_q", "-1", "at least 0", [](F& f) { f.args.max_total_q = -1; }),
      bad<F>(kOwner + "cu_q[2]", "5", "at most max_total_q = 4", [](F& f) { f.args.max_total_q = 4; }),
      bad<F>(kOwner + "max_q_len", "-1", "at least 0", [](F& f) { f.args.max_q_len = -1; }),
      bad<F>(kOwner + "cu_q[1]", "3", "at most cu_q[0] + max_q_len = 2", [](F& f) { f.args.max_q_len = 2; }),
      bad<F>(kOwner + "max_k_len", "-1", "at least 0", [](F& f) { f.args.max_k_len = -1; }),
      bad<F>(kOwner + "cu_k[1]", "10", "at most cu_k[0] + max_k_len = 9", [](F& f) { f.args.max_k_len = 9; }),
      bad<F>(kOwner + "q_heads", "0", "1 .. 65536", [](F& f) { f.args.q_heads = 0; }),
      bad<F>(kOwner + "q_heads", "3", "a multiple of layout.kv_heads = 2", [](F& f) { f.args.q_heads = 3; }),
      bad<F>(kOwner + "q", "null", address, [](F& f) { f.args.q = nullptr; }),
      bad<F>(kOwner + "q", "*", address, [](F& f) { f.args.q = f.q.at(4); }),
      bad<F>(kOwner + "o", "null", address, [](F& f) { f.args.o = nullptr; }),
      bad<F>(kOwner + "o", "*", address, [](F& f) { f.args.o = f.o.at(4); }),
      bad<F>(kOwner + "lse", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.lse = misaligned(f.args.lse); }),
      bad<F>(kOwner + "sinks", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.sinks = misaligned(f.args.sinks); }),
      bad<F>(kOwner + "softmax_scale", "-1", scale, [](F& f) { f.args.softmax_scale = -1; }),
      bad<F>(kOwner + "softmax_scale", "nan", scale, [](F& f) { f.args.softmax_scale = kNan; }),
      bad<F>(kOwner + "softcap", "-30", softcap, [](F& f) { f.args.softcap = -30; }),
      bad<F>(kOwner + "softcap", "inf", softcap, [](F& f) { f.args.softcap = INFINITY; }),
      bad<F>(kOwner + "window", "-1", "at least 0", [](F& f) { f.args.window = -1; }),
      bad<F>(kOwner + "window", "5", "0 when causal is false",
             [](F& f) {
               f.args.causal = false;
               f.args.window = 5;
             }),
      bad<F>(kOwner + "v_dim", "16", "0 without layout.shared_kv", [](F& f) { f.args.v_dim = 16; }),
      bad<F>(kOwner + "v_offset", "16", "0 without layout.shared_kv", [](F& f) { f.args.v_offset = 16; }),
      bad<F>(kOwner + "v_dim", "80", "0 .. 64",
             [](F& f) {
               f.use_shared_rows();
               f.args.v_dim = 80;
             }),
      bad<F>(kOwner + "v_dim", "24", "a multiple of 16",
             [](F& f) {
               f.use_shared_rows();
               f.args.v_dim = 24;
             }),
      bad<F>(kOwner + "v_offset", "32", "0 .. 16",
             [](F& f) {
               f.use_shared_rows();
               f.args.v_dim = 48;
               f.args.v_offset = 32;
             }),
      bad<F>(kOwner + "v_offset", "8", "a multiple of 16",
             [](F& f) {
               f.use_shared_rows();
               f.args.v_dim = 48;
               f.args.v_offset = 8;
             }),
      bad<F>("Workspace.data", "null", "an address aligned to 256 bytes", [](F& f) { f.workspace.data = nullptr; }),
      bad<F>("Workspace.data", "*", "an address aligned to 256 bytes",
             [](F& f) { f.workspace.data = static_cast<char*>(f.workspace.data) + 64; }),
  });
  const std::size_t needed = F().workspace.bytes;
  expect_errors({
      bad<F>("Workspace.bytes", "0", "at least " + std::to_string(needed), [](F& f) { f.workspace.bytes = 0; }),
      bad<F>("Workspace.bytes", std::to_string(needed - 1), "at least " + std::to_string(needed),
             [](F& f) { --f.workspace.bytes; }),
  });
}

TEST(BadArguments, Prefill) {
  using F = AttentionFixture<false>;
  expect_errors_of_both<F>();
  expect_errors({bad_call("AttentionArgs.q_heads", "3", "a multiple of layout.kv_heads = 2", [] {
    F f;
    f.args.q_heads = 3;
    pagedkv::cpu::prefill_workspace_bytes(f.args);
  })});
}

TEST(BadArguments, Decode) {
  using F = AttentionFixture<true>;
  expect_errors_of_both<F>();
  expect_errors({
      bad<F>(kOwner + "causal", "false", "true for decode; prefill takes both", [](F& f) { f.args.causal = false; }),
      bad<F>(kOwner + "cu_q[1]", "17", "at most cu_q[0] + 16 for decode; prefill takes any q_len",
             [](F& f) {
               f.args.batch = 1;
               f.cu_blocks = {0, 3};
               f.args.table.cu_blocks = f.cu_blocks.data();
               f.cu_q[1] = f.cu_k[1] = 17;
               f.args.max_total_q = f.args.max_q_len = f.args.max_k_len = 17;
             }),
      bad_call("AttentionArgs.q_heads", "3", "a multiple of layout.kv_heads = 2",
               [] {
                 F f;
                 f.args.q_heads = 3;
                 pagedkv::cpu::decode_workspace_bytes(f.args);
               }),
  });
}

TEST(BadArguments, FusedDecode) {
  expect_good<FusedFixture>();
  expect_errors(fused_arguments<FusedFixture>());
  const std::size_t needed = FusedFixture().workspace.bytes;
  expect_errors({bad<FusedFixture>("Workspace.bytes", std::to_string(needed - 1), "at least " + std::to_string(needed),
                                   [](FusedFixture& f) { --f.workspace.bytes; })});
  using F = AttentionFixture<false>;
  expect_errors({
      bad<F>(kOwner + "finished", "*", "null for prefill",
             [](F& f) { f.args.finished = reinterpret_cast<const std::uint8_t*>(f.q.at(0)); }),
      bad<F>(kOwner + "tree_mask", "*", "null for prefill",
             [](F& f) { f.args.tree_mask = reinterpret_cast<const std::uint32_t*>(f.q.at(0)); }),
      bad<F>(kOwner + "log_n_length", "100", "0 for prefill", [](F& f) { f.args.log_n_length = 100; }),
      bad<F>(kOwner + "fuse_write.k", "*", "null for prefill", [](F& f) { f.args.fuse_write.k = f.q.at(0); }),
      bad<F>(kOwner + "q_bias", "*", "null for prefill", [](F& f) { f.args.q_bias = f.q.at(0); }),
      bad<F>(kOwner + "rotate_q", "true", "false for prefill", [](F& f) { f.args.rotate_q = true; }),
      bad<F>(kOwner + "read_ahead", "true", "false for prefill", [](F& f) { f.args.read_ahead = true; }),
  });
}

TEST(BadArguments, MergePartials) {
  using F = MergeFixture;
  expect_good<F>();
  expect_errors(exec_arguments<F>());
  const std::string o = "MergePartialsArgs.";
  const std::string address = "an address aligned to 16 bytes";
  const std::string floats = "an address aligned to 4 bytes";
  expect_errors({
      bad<F>(o + "parts", "0", "1 .. 65536", [](F& f) { f.args.parts = 0; }),
      bad<F>(o + "rows", "-1", "0 .. 1099511627776", [](F& f) { f.args.rows = -1; }),
      bad<F>(o + "dim", "0", "8 .. 1024", [](F& f) { f.args.dim = 0; }),
      bad<F>(o + "dim", "12", "a multiple of 8", [](F& f) { f.args.dim = 12; }),
      bad<F>(o + "dtype", "99", "f32, f16 or bf16", [](F& f) { f.args.dtype = no_such<pagedkv::DType>(); }),
      bad<F>(o + "o_parts", "null", address, [](F& f) { f.args.o_parts = nullptr; }),
      bad<F>(o + "o_parts", "*", address, [](F& f) { ++f.args.o_parts; }),
      bad<F>(o + "lse_parts", "null", floats, [](F& f) { f.args.lse_parts = nullptr; }),
      bad<F>(o + "lse_parts", "*", floats, [](F& f) { f.args.lse_parts = misaligned(f.args.lse_parts); }),
      bad<F>(o + "o", "null", address, [](F& f) { f.args.o = nullptr; }),
      bad<F>(o + "o", "*", address, [](F& f) { f.args.o = f.o.at(4); }),
      bad<F>(o + "lse", "*", "null or " + floats, [](F& f) { f.args.lse = misaligned(f.args.lse); }),
  });
}

}  // namespace
