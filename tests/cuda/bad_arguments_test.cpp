// The bad arguments of the CPU backend's list, for the CUDA backend: what needs no device memory is refused without a
// device, contents of arrays with Validation::full on one. Nothing is launched: the fixtures' memory is the host's.

#include <gtest/gtest.h>

#include "cuda/device_ops.h"
#include "ops/bad_arguments.h"
#include "ops/bad_arguments_fixtures.h"
#include "ops/bad_arguments_tables.h"
#include "pagedkv/cuda.h"

namespace {

using namespace bad_arguments;
using pagedkv::cuda::Validation;

template <Validation kValidation>
struct CudaWrite : WriteFixture {
  void run() { pagedkv::cuda::write_kv(args, kValidation, nullptr); }
};
template <Validation kValidation>
struct CudaFlatten : FlattenFixture {
  void run() { pagedkv::cuda::flatten_kv(args, kValidation, nullptr); }
};

struct CudaFusedDecode : FusedFixture {
  void run() { pagedkv::cuda::decode(args, workspace, nullptr); }
};

template <class F>
Table write_table() {
  Table table = cache_arguments<F>("WriteKvArgs");
  const auto add = [&](const Table& more) { table.insert(table.end(), more.begin(), more.end()); };
  add(new_token_arguments<F>("WriteKvArgs"));
  add(rope_arguments<F>("WriteKvArgs"));
  add(stride_arguments<F>("WriteKvArgs", "strides", [](F& f) -> pagedkv::TokenStrides& { return f.args.strides; }));
  const std::string address = "an address aligned to 16 bytes";
  add({
      bad<F>("WriteKvArgs.layout.dtype", "f32", "f16 or bf16; f32 exists on the CPU only",
             [](F& f) {
               pagedkv::CacheConfig c = small_config();
               c.dtype = pagedkv::DType::f32;
               f.args.layout = make_layout(c);
             }),
      bad<F>("WriteKvArgs.max_total_q", "-1", "at least 0", [](F& f) { f.args.max_total_q = -1; }),
      bad<F>("WriteKvArgs.k", "null", address, [](F& f) { f.args.k = nullptr; }),
      bad<F>("WriteKvArgs.k", "*", address, [](F& f) { f.args.k = f.k.at(4); }),
      bad<F>("WriteKvArgs.v", "null", address, [](F& f) { f.args.v = nullptr; }),
      bad<F>("WriteKvArgs.v_bias", "*", "null or " + address, [](F& f) { f.args.v_bias = f.bias.at(4); }),
      bad<F>("WriteKvArgs.readonly_blocks[1]", "-1", "at least 0", [](F& f) { f.readonly[1] = -1; }),
  });
  return table;
}

template <class F>
Table flatten_table() {
  Table table = cache_arguments<F>("FlattenKvArgs");
  const auto add = [&](const Table& more) { table.insert(table.end(), more.begin(), more.end()); };
  add(rope_arguments<F>("FlattenKvArgs"));
  add(stride_arguments<F>("FlattenKvArgs", "strides", [](F& f) -> pagedkv::TokenStrides& { return f.args.strides; }));
  add({
      bad<F>("FlattenKvArgs.max_total_k", "-1", "at least 0", [](F& f) { f.args.max_total_k = -1; }),
      bad<F>("FlattenKvArgs.k", "null", "an address aligned to 16 bytes", [](F& f) { f.args.k = nullptr; }),
      bad<F>("FlattenKvArgs.v", "*", "an address aligned to 16 bytes", [](F& f) { f.args.v = f.v.at(4); }),
  });
  return table;
}

/// Whether the error is about what an array holds: an element of it, or how many blocks lengths ask for.
bool is_content(const BadArgument& b) {
  const bool element = b.argument.ends_with("]") && b.argument.find("mrope_section") == std::string::npos;
  return element || b.accepted.find("sequence") != std::string::npos;
}

Table without_contents(Table table) {
  std::erase_if(table, is_content);
  return table;
}

TEST(CudaBadArguments, WithoutReadingArrays) {
  const Table write = without_contents(write_table<CudaWrite<Validation::arguments>>());
  const Table flatten = without_contents(flatten_table<CudaFlatten<Validation::arguments>>());
  EXPECT_GT(write.size(), 50U);
  EXPECT_GT(flatten.size(), 40U);
  expect_errors(write);
  expect_errors(flatten);
  expect_errors(without_contents(fused_arguments<CudaFusedDecode>()));
}

TEST(CudaBadArguments, FullValidationReadsArrays) {
  PAGEDKV_NEEDS_DEVICE();
  expect_errors(write_table<CudaWrite<Validation::full>>());
  expect_errors(flatten_table<CudaFlatten<Validation::full>>());
}

TEST(CudaBadArguments, NoKernelForTheHeadDim) {
  PAGEDKV_NEEDS_DEVICE();
  CudaWrite<Validation::arguments> f;
  pagedkv::CacheConfig c = small_config();
  c.head_dim = 80;
  f.args.layout = make_layout(c);
  try {
    f.run();
    FAIL() << "no Error";
  } catch (const pagedkv::Error& e) {
    EXPECT_EQ(e.code(), pagedkv::ErrorCode::unsupported);
    EXPECT_NE(e.value().find("head_dim 80"), std::string::npos) << e.what();
    EXPECT_NE(e.accepted().find("head_dim 128"), std::string::npos) << e.what();
  }
}

}  // namespace
