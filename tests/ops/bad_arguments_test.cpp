// Walks through every argument of every function that takes one: spoilt, it is an Error that names it, its value and
// what is accepted, and nothing has been written.

#include <gtest/gtest.h>

#include <string>

#include "ops/bad_arguments.h"
#include "ops/bad_arguments_fixtures.h"
#include "ops/bad_arguments_tables.h"

namespace {

using namespace bad_arguments;

TEST(BadArguments, WriteKv) {
  using F = WriteFixture;
  expect_good<F>();
  expect_errors(exec_arguments<F>());
  expect_errors(cache_arguments<F>("WriteKvArgs"));
  expect_errors(new_token_arguments<F>("WriteKvArgs"));
  expect_errors(rope_arguments<F>("WriteKvArgs"));
  expect_errors(
      stride_arguments<F>("WriteKvArgs", "strides", [](F& f) -> pagedkv::TokenStrides& { return f.args.strides; }));
  const std::string address = "an address aligned to 16 bytes";
  expect_errors({
      bad<F>("WriteKvArgs.k", "null", address, [](F& f) { f.args.k = nullptr; }),
      bad<F>("WriteKvArgs.k", "*", address, [](F& f) { f.args.k = f.k.at(4); }),
      bad<F>("WriteKvArgs.v", "null", address, [](F& f) { f.args.v = nullptr; }),
      bad<F>("WriteKvArgs.v", "*", address, [](F& f) { f.args.v = f.v.at(4); }),
      bad<F>("WriteKvArgs.k_bias", "*", "null or " + address, [](F& f) { f.args.k_bias = f.bias.at(4); }),
      bad<F>("WriteKvArgs.v_bias", "*", "null or " + address, [](F& f) { f.args.v_bias = f.bias.at(4); }),
      bad<F>("WriteKvArgs.readonly_blocks", "*", "null or an address aligned to 4 bytes",
             [](F& f) { f.args.readonly_blocks = misaligned(f.args.readonly_blocks); }),
      bad<F>("WriteKvArgs.readonly_blocks[1]", "-1", "at least 0", [](F& f) { f.readonly[1] = -1; }),
  });
}

TEST(BadArguments, FlattenKv) {
  using F = FlattenFixture;
  expect_good<F>();
  expect_errors(exec_arguments<F>());
  expect_errors(cache_arguments<F>("FlattenKvArgs"));
  expect_errors(rope_arguments<F>("FlattenKvArgs"));
  expect_errors(
      stride_arguments<F>("FlattenKvArgs", "strides", [](F& f) -> pagedkv::TokenStrides& { return f.args.strides; }));
  const std::string address = "an address aligned to 16 bytes";
  expect_errors({
      bad<F>("FlattenKvArgs.k", "null", address, [](F& f) { f.args.k = nullptr; }),
      bad<F>("FlattenKvArgs.k", "*", address, [](F& f) { f.args.k = f.k.at(4); }),
      bad<F>("FlattenKvArgs.v", "null", address, [](F& f) { f.args.v = nullptr; }),
      bad<F>("FlattenKvArgs.v", "*", address, [](F& f) { f.args.v = f.v.at(4); }),
  });
}

TEST(BadArguments, ApplyRope) {
  using F = ApplyRopeFixture;
  expect_good<F>();
  expect_errors(exec_arguments<F>());
  const std::string o = "ApplyRopeArgs";
  expect_errors(new_token_arguments<F>(o));
  expect_errors(rope_arguments<F>(o));
  expect_errors(stride_arguments<F>(o, "x_strides", [](F& f) -> pagedkv::TokenStrides& { return f.args.x_strides; }));
  expect_errors(stride_arguments<F>(o, "y_strides", [](F& f) -> pagedkv::TokenStrides& { return f.args.y_strides; }));
  const std::string address = "an address aligned to 16 bytes";
  expect_errors({
      bad<F>(o + ".dtype", "99", "f32, f16 or bf16", [](F& f) { f.args.dtype = no_such<pagedkv::DType>(); }),
      bad<F>(o + ".heads", "0", "1 .. 65536", [](F& f) { f.args.heads = 0; }),
      bad<F>(o + ".head_dim", "0", "16 .. 1024", [](F& f) { f.args.head_dim = 0; }),
      bad<F>(o + ".head_dim", "72", "a multiple of 16", [](F& f) { f.args.head_dim = 72; }),
      bad<F>(o + ".batch", "-1", "0 .. 65536", [](F& f) { f.args.batch = -1; }),
      bad<F>(o + ".cu_k", "null", "an address aligned to 4 bytes", [](F& f) { f.args.cu_k = nullptr; }),
      bad<F>(o + ".cu_k[2]", "9", "at least cu_k[1] = 10", [](F& f) { f.cu_k[2] = 9; }),
      bad<F>(o + ".x", "null", address, [](F& f) { f.args.x = nullptr; }),
      bad<F>(o + ".x", "*", address, [](F& f) { f.args.x = f.x.at(4); }),
      bad<F>(o + ".y", "null", address, [](F& f) { f.args.y = nullptr; }),
      bad<F>(o + ".y", "*", address, [](F& f) { f.args.y = f.y.at(4); }),
      bad<F>(o + ".bias", "*", "null or " + address, [](F& f) { f.args.bias = f.bias.at(4); }),
  });
}

}  // namespace
