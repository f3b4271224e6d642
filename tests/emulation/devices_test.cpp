// Two devices that differ in their number of multiprocessors: work is cut differently, results are the same bits.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <vector>

#include "cuda/decode/decode_case.h"
#include "cuda/device_memory.h"
#include "ops/fused_case.h"

namespace {

using pagedkv::DType;
using pagedkv::KvType;

int multiprocessors(int device) {
  int n = 0;
  support::cuda_ok(cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device));
  return n;
}

/// Makes a device the current one for its lifetime.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    support::cuda_ok(cudaGetDevice(&before_));
    support::cuda_ok(cudaSetDevice(device));
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

ops::Result run_on(int device, ops::Case& c, const decode_test::Call& call = {}) {
  const OnDevice on(device);
  return decode_test::run(c, call);
}

TEST(EmulatedDevices, DecodeGivesTheSameBits) {
  ASSERT_NE(multiprocessors(0), multiprocessors(1));
  for (const KvType stored : {KvType::same, KvType::int8, KvType::int4}) {
    ops::CaseSpec s;
    s.config.kv_heads = 2;
    s.config.head_dim = 128;
    s.config.block_len = 32;
    s.config.dtype = stored == KvType::int8 ? DType::bf16 : DType::f16;
    s.config.format = {stored, stored};
    s.q_heads = 6;
    s.lengths = {{1, 900, 0}, {3, 70, 1}, {0, 40, 2}, {1, 2300, 3}, {2, 2, 4}};
    ops::Case c(s);
    const ops::Result few = run_on(0, c);
    const ops::Result many = run_on(1, c);
    EXPECT_EQ(few.o, many.o) << ops::describe(s);
    EXPECT_EQ(few.lse, many.lse) << ops::describe(s);
  }
}

TEST(EmulatedDevices, FusedDecodeGivesTheSameBits) {
  ops::FusedSpec s;
  s.base.config.kv_heads = 2;
  s.base.config.head_dim = 128;
  s.base.config.block_len = 32;
  s.base.config.dtype = DType::bf16;
  s.base.config.format = {KvType::int4, KvType::int8};
  s.base.q_heads = 6;
  s.base.lengths = {{1, 900, 0}, {3, 70, 1}, {0, 40, 2}, {1, 2300, 3}, {9, 260, 4}};
  s.rotate_q = true;
  ops::set_rope(s, 2);
  ops::FusedCase c(s);
  c.reset();
  std::vector<char> blocks[2];
  decode_test::Call call;
  call.args = c.fused();
  call.mrope_rows = c.mrope_rows();
  call.blocks = &blocks[0];
  const ops::Result few = run_on(0, c.plain(), call);
  call.blocks = &blocks[1];
  const ops::Result many = run_on(1, c.plain(), call);
  EXPECT_EQ(blocks[0], blocks[1]);
  EXPECT_EQ(few.o, many.o);
  EXPECT_EQ(few.lse, many.lse);
}

}  // namespace
