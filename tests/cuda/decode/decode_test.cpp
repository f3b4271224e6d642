// Decode on the device against the float64 oracle, and the bits that must not change.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cuda/decode/decode_case.h"
#include "cuda/device_memory.h"
#include "cuda/device_ops.h"
#include "pagedkv/error.h"

namespace {

using decode_test::Call;
using ops::Case;
using ops::CaseSpec;
using ops::Lengths;
using ops::Result;
using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;

constexpr DType kTypes[] = {DType::f16, DType::bf16};
constexpr KvType kFormats[] = {KvType::same, KvType::int8, KvType::int4};

CaseSpec base(DType type, KvFormat format, int head_dim, int q_heads, int kv_heads) {
  CaseSpec s;
  s.config.layers = 2;
  s.config.kv_heads = kv_heads;
  s.config.head_dim = head_dim;
  s.config.block_len = 64;
  s.config.dtype = type;
  s.config.format = format;
  s.q_heads = q_heads;
  s.lengths = {{1, 1, 0}, {1, 64, 1},  {0, 5, 2},   {3, 65, 3},  {1, 257, 4},
               {0, 0, 5}, {16, 16, 6}, {2, 700, 7}, {1, 2500, 8}};
  return s;
}

void check(const CaseSpec& spec) {
  SCOPED_TRACE(ops::describe(spec));
  Case c(spec);
  decode_test::expect_close(spec, decode_test::run(c), c.expected());
}

TEST(GpuDecode, TypesAndFormats) {
  PAGEDKV_NEEDS_DEVICE();
  for (const DType type : kTypes) {
    for (const KvType k : kFormats) {
      for (const KvType v : kFormats) check(base(type, {k, v}, 128, 4, 1));
    }
  }
}

TEST(GpuDecode, HeadDims) {
  PAGEDKV_NEEDS_DEVICE();
  for (const int d : {64, 96, 192, 256}) {
    for (const KvType k : kFormats) {
      check(base(DType::f16, {k, k}, d, 3, 1));
      check(base(DType::bf16, {k, k}, d, 2, 2));
    }
    check(base(DType::f16, {KvType::int8, KvType::int4}, d, 2, 1));
    check(base(DType::bf16, {KvType::int4, KvType::same}, d, 2, 1));
  }
}

TEST(GpuDecode, HeadRatios) {
  PAGEDKV_NEEDS_DEVICE();
  for (const auto& [q, kv] : {std::pair{1, 1}, {3, 3}, {2, 1}, {9, 3}, {5, 1}, {8, 1}, {16, 1}, {33, 1}}) {
    check(base(DType::f16, {KvType::int8, KvType::int8}, 64, q, kv));
  }
}

TEST(GpuDecode, Options) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    for (const int window : {0, 1, 7, 64, 300}) {
      for (const float softcap : {0.0F, 1.5F}) {
        for (const bool sinks : {false, true}) {
          CaseSpec s = base(DType::f16, {k, k}, 64, 3, 1);
          s.window = window;
          s.softcap = softcap;
          s.sinks = sinks;
          s.scale = sinks ? 0.2F : 0.0F;
          s.pointer_table = sinks;
          s.head_gap = sinks ? 8 : 0;
          s.o_is_f32 = softcap > 0;
          check(s);
        }
      }
    }
  }
}

TEST(GpuDecode, BlockLengths) {
  PAGEDKV_NEEDS_DEVICE();
  for (const int len : {16, 32, 128}) {
    for (const KvType k : kFormats) {
      CaseSpec s = base(DType::f16, {k, k}, 128, 2, 1);
      s.config.block_len = len;
      check(s);
      s.window = 90;
      s.pointer_table = true;
      check(s);
    }
  }
}

TEST(GpuDecode, SharedRows) {
  PAGEDKV_NEEDS_DEVICE();
  for (const DType type : kTypes) {
    for (const KvType k : kFormats) {
      CaseSpec s = base(type, {k, k}, 576, 16, 1);
      s.config.shared_kv = true;
      s.v_dim = 512;
      s.v_offset = k == KvType::int8 ? 0 : 64;
      s.lengths = {{1, 1, 0}, {1, 1030, 1}, {2, 300, 2}};
      check(s);
    }
  }
}

TEST(GpuDecode, ContextParallel) {
  PAGEDKV_NEEDS_DEVICE();
  for (const int size : {2, 3}) {
    for (int rank = 0; rank < size; ++rank) {
      for (const int interleave : {1, 16}) {
        CaseSpec s = base(DType::f16, {KvType::int8, KvType::int4}, 128, 4, 1);
        s.cp = {rank, size, interleave};
        s.sinks = true;
        s.o_is_f32 = true;
        check(s);
        s.window = 100;
        check(s);
      }
    }
  }
}

/// Everything that must not change a sequence's bits: neighbours, their order, block order and length, table kind,
/// stated maxima, a graph, read_ahead.
void check_bits(KvType k, int head_dim) {
  CaseSpec alone = base(DType::f16, {k, k}, head_dim, 4, 1);
  alone.lengths = {{1, 2300, 11}};
  const auto dim = static_cast<std::size_t>(head_dim);
  Case needle(alone);
  const Result want = decode_test::run(needle);
  std::mt19937 random(3);
  for (int round = 0; round < 6; ++round) {
    CaseSpec s = alone;
    s.lengths.clear();
    const int place = static_cast<int>(random() % 20);
    for (int b = 0; b < 20; ++b) {
      const int k_len = 1 + static_cast<int>(random() % 1500);
      const int q_len = std::min(k_len, round < 3 ? 1 : 1 + static_cast<int>(random() % 5));
      s.lengths.push_back(b == place ? alone.lengths[0] : Lengths{q_len, k_len, 20 + b});
    }
    s.block_order = random();
    s.config.block_len = 16 << (round % 4);
    s.pointer_table = round % 2 == 1;
    Case c(s);
    Call call;
    call.more_k_len = round * 3000;
    call.more_q_len = round % 3;
    call.graph = round % 2 == 0;
    call.args = c.args();
    call.args->read_ahead = round > 1;
    const Result got = decode_test::run(c, call);
    int row = 0;
    for (int b = 0; b < place; ++b) row += s.lengths[static_cast<std::size_t>(b)].q_len;
    for (std::size_t h = 0; h < 4; ++h) {
      const std::size_t r = static_cast<std::size_t>(row) * 4 + h;
      ASSERT_EQ(got.lse[r], want.lse[h]) << name(k) << " round " << round;
      for (std::size_t d = 0; d < dim; ++d) {
        ASSERT_EQ(got.o[r * dim + d], want.o[h * dim + d]) << name(k) << " round " << round << " d " << d;
      }
    }
  }
}

TEST(GpuDecode, BitsDependOnTheSequenceAlone) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    check_bits(k, 128);
    check_bits(k, 64);
  }
}

/// More splits than are joined at a time, in sequences of their own CTAs and of few.
TEST(GpuDecode, ManySplits) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : {KvType::same, KvType::int4}) {
    CaseSpec s = base(DType::f16, {k, k}, 64, 2, 1);
    s.lengths = {{1, 33000, 0}};
    s.scale = 1.0F;  // the mean of so many values would be near 0
    Case alone(s);
    const Result want = decode_test::run(alone);
    decode_test::expect_close(s, want, alone.expected());
    s.lengths = {{1, 700, 1}, {1, 33000, 0}, {2, 5000, 2}, {1, 34000, 3}};
    Case c(s);
    Call call;
    call.more_k_len = 40000;
    call.graph = true;
    const Result got = decode_test::run(c, call);
    decode_test::expect_close(s, got, c.expected());
    for (std::size_t h = 0; h < 2; ++h) {
      ASSERT_EQ(got.lse[2 + h], want.lse[h]);
      for (std::size_t d = 0; d < 64; ++d) ASSERT_EQ(got.o[(2 + h) * 64 + d], want.o[h * 64 + d]) << d;
    }
  }
}

/// Splits that are no power of two long: from another start, with a window, in CTAs of their own and beside others.
TEST(GpuDecode, LongSplits) {
  PAGEDKV_NEEDS_DEVICE();
  for (const bool window : {false, true}) {
    CaseSpec s = base(DType::f16, {KvType::int8, KvType::int8}, 64, 3, 1);
    s.lengths = {{2, 67000, 0}};
    s.scale = 1.0F;
    if (window) s.window = 30000;
    Case alone(s);
    const Result want = decode_test::run(alone);
    decode_test::expect_close(s, want, alone.expected());
    s.lengths = {{2, 67000, 0}, {1, 65536, 1}, {1, 300, 2}};
    s.config.block_len = window ? 16 : 128;
    Case c(s);
    Call call;
    call.more_k_len = 400000;
    call.args = c.args();
    call.args->read_ahead = window;
    const Result got = decode_test::run(c, call);
    decode_test::expect_close(s, got, c.expected());
    EXPECT_TRUE(std::equal(want.o.begin(), want.o.end(), got.o.begin())) << window;
    EXPECT_TRUE(std::equal(want.lse.begin(), want.lse.end(), got.lse.begin())) << window;
  }
}

/// The workspace is that of the longest sequence without them and the shortest with them.
TEST(GpuDecode, FirstLengthOfLongSplits) {
  PAGEDKV_NEEDS_DEVICE();
  for (const int k_len : {65536, 65537}) {
    CaseSpec s = base(DType::f16, {KvType::int4, KvType::int4}, 64, 1, 1);
    s.lengths = {{1, k_len, 0}};
    s.scale = 1.0F;
    check(s);
  }
}

TEST(GpuDecode, LongSplitsOfARank) {
  PAGEDKV_NEEDS_DEVICE();
  for (const pagedkv::ContextParallel cp : {pagedkv::ContextParallel{1, 2, 16}, {0, 3, 1}}) {
    CaseSpec s = base(DType::f16, {KvType::int4, KvType::int4}, 64, 2, 1);
    s.lengths = {{2, 70000, 0}};
    s.scale = 1.0F;
    s.cp = cp;
    s.o_is_f32 = true;
    check(s);
  }
}

/// Sequences of one new token each. All read the blocks of one of 1024 tokens, again and again, so that long ones take
/// little time to make.
class RepeatedBlocks {
 public:
  RepeatedBlocks(const CaseSpec& spec, const std::vector<int>& k_lens) : case_(of_one(spec)), args_(case_.args()) {
    const int blocks = kStored / args_.layout.block_len;
    const auto row = static_cast<std::size_t>(args_.q_strides.token * pagedkv::dtype_bytes(args_.layout.dtype));
    const auto* q = static_cast<const char*>(args_.q);
    for (const int k_len : k_lens) {
      cu_q_.push_back(cu_q_.back() + 1);
      cu_k_.push_back(cu_k_.back() + k_len);
      for (int i = 0; i * args_.layout.block_len < k_len; ++i) indices_.push_back(args_.table.indices[i % blocks]);
      cu_blocks_.push_back(static_cast<std::int32_t>(indices_.size()));
      q_.insert(q_.end(), q, q + row);
    }
    args_.batch = static_cast<std::int32_t>(k_lens.size());
    args_.max_total_q = args_.batch;
    args_.max_k_len = *std::max_element(k_lens.begin(), k_lens.end());
    args_.cu_q = cu_q_.data();
    args_.cu_k = cu_k_.data();
    args_.table.cu_blocks = cu_blocks_.data();
    args_.table.indices = indices_.data();
    args_.q = q_.data();
  }
  RepeatedBlocks(const RepeatedBlocks&) = delete;
  RepeatedBlocks& operator=(const RepeatedBlocks&) = delete;

  Result run() {
    Call call;
    call.args = args_;
    return decode_test::run(case_, call);
  }
  /// The first sequence alone, with another length that is also the stated maximum.
  Result run_one(int k_len) {
    Call call;
    const std::vector<std::int32_t> cu_k = {0, k_len};
    call.args = args_;
    call.args->batch = 1;
    call.args->max_total_q = 1;
    call.args->max_k_len = k_len;
    call.args->cu_k = cu_k.data();
    return decode_test::run(case_, call);
  }
  /// A single sequence by a graph that is captured and run with one length and then with another.
  Result run_graph(int captured, int replayed) {
    Call call;
    call.graph = true;
    const std::vector<std::int32_t> cu_k = {0, captured};
    call.args = args_;
    call.args->cu_k = cu_k.data();
    call.later_cu_k = {0, replayed};
    return decode_test::run(case_, call);
  }

 private:
  static constexpr int kStored = 1024;

  static CaseSpec of_one(CaseSpec s) {
    s.lengths = {{1, kStored, 0}};
    return s;
  }

  Case case_;
  pagedkv::AttentionArgs args_;
  std::vector<std::int32_t> cu_q_ = {0};
  std::vector<std::int32_t> cu_k_ = {0};
  std::vector<std::int32_t> cu_blocks_ = {0};
  std::vector<std::int32_t> indices_;
  std::vector<char> q_;
};

/// The first head of a result, which is the same whatever number of heads there is, unless the splits differ.
std::vector<double> first_head(const Result& r) {
  std::vector<double> x(r.o.begin(), r.o.begin() + 64);
  x.push_back(r.lse[0]);
  return x;
}

/// Which lengths have long splits depends on the number of KV heads; with 5 none has. A window that sees the last keys
/// only is enough to tell.
TEST(GpuDecode, LengthsWithLongSplits) {
  PAGEDKV_NEEDS_DEVICE();
  const std::pair<int, int> ends[] = {{1, 491520}, {2, 245760}, {3, 163840}, {4, 122880}};
  for (const auto& [kv_heads, end] : ends) {
    const KvType k = kv_heads % 2 == 0 ? KvType::int4 : KvType::int8;
    const auto with_heads = [k, longest = end + 1](int heads) {
      CaseSpec s = base(DType::f16, {k, k}, 64, heads, heads);
      s.window = 1500;
      s.o_is_f32 = true;
      return RepeatedBlocks(s, {longest});
    };
    RepeatedBlocks c = with_heads(kv_heads);
    RepeatedBlocks one = with_heads(1);
    RepeatedBlocks five = with_heads(5);
    for (const int k_len : {65536, 65537, end, end + 1}) {
      const bool has_them = k_len > 65536 && k_len <= end;
      const std::vector<double> got = first_head(c.run_one(k_len));
      EXPECT_EQ(got != first_head(five.run_one(k_len)), has_them) << kv_heads << ' ' << k_len;
      if (kv_heads == 1) continue;
      EXPECT_EQ(got == first_head(one.run_one(k_len)), k_len <= end) << kv_heads << ' ' << k_len;
    }
    if (kv_heads != 4) continue;
    // From either side to the other, in a graph.
    for (const int last : {65536, end}) {
      EXPECT_EQ(first_head(c.run_graph(last, last + 1)), first_head(c.run_one(last + 1))) << kv_heads << ' ' << last;
      EXPECT_EQ(first_head(c.run_graph(last + 1, last)), first_head(c.run_one(last))) << kv_heads << ' ' << last;
    }
  }
}

/// A graph whose replays split all of a sequence in the one or the other way.
TEST(GpuDecode, LongSplitsInAGraph) {
  PAGEDKV_NEEDS_DEVICE();
  CaseSpec s = base(DType::f16, {KvType::int4, KvType::int4}, 64, 1, 1);
  s.scale = 1.0F;
  RepeatedBlocks graph(s, {66600});
  for (const auto& [from, to] : {std::pair{66600, 65536}, {65536, 66600}}) {
    const Result got = graph.run_graph(from, to);
    const Result want = graph.run_one(to);
    EXPECT_EQ(got.o, want.o) << to;
    EXPECT_EQ(got.lse, want.lse) << to;
  }
}

/// Two items and more for every CTA, most of them of the same sequence.
TEST(GpuDecode, SeveralLongSplitsInACta) {
  PAGEDKV_NEEDS_DEVICE();
  int device = 0;
  int multiprocessors = 0;
  support::cuda_ok(cudaGetDevice(&device));
  support::cuda_ok(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  for (const KvType k : {KvType::int8, KvType::int4}) {
    CaseSpec s = base(DType::f16, {k, k}, 64, 2, 1);
    s.scale = 1.0F;
    const Result want = RepeatedBlocks(s, {66000}).run();
    // 52 items each, for up to 3 CTAs of a multiprocessor.
    std::vector<int> k_lens(static_cast<std::size_t>(2 + multiprocessors / 8), 66000);
    k_lens.insert(k_lens.begin(), 300);
    const Result got = RepeatedBlocks(s, k_lens).run();
    for (std::size_t b = 1; b < k_lens.size(); ++b) {
      for (std::size_t h = 0; h < 2; ++h) {
        ASSERT_EQ(got.lse[b * 2 + h], want.lse[h]) << name(k) << ' ' << b;
        for (std::size_t d = 0; d < 64; ++d) {
          ASSERT_EQ(got.o[(b * 2 + h) * 64 + d], want.o[h * 64 + d]) << name(k) << ' ' << b << ' ' << d;
        }
      }
    }
  }
}

/// Splits with the same keys give the same results, so joining more of them leaves o as it is, but for rounding, and
/// adds the logarithm of their number to lse. 16 splits of a row that is key and value both are joined at once, 17 in
/// runs.
TEST(GpuDecode, RunsOfSharedRows) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    CaseSpec s = base(DType::f16, {k, k}, 576, 2, 1);
    s.config.shared_kv = true;
    s.v_dim = 512;
    s.o_is_f32 = true;
    const std::vector<int> copies = {2, 16, 17};
    std::vector<int> k_lens;
    for (const int n : copies) k_lens.push_back(1024 * n);
    const Result got = RepeatedBlocks(s, k_lens).run();
    const auto row = static_cast<std::size_t>(2 * 512);
    for (std::size_t b = 1; b < copies.size(); ++b) {
      for (std::size_t i = 0; i < row; ++i) {
        ASSERT_NEAR(got.o[b * row + i], got.o[i], 1e-5) << name(k) << ' ' << copies[b] << ' ' << i;
      }
      for (std::size_t head = 0; head < 2; ++head) {
        ASSERT_NEAR(got.lse[b * 2 + head], got.lse[head] + std::log(copies[b] / 2.0), 1e-5)
            << name(k) << ' ' << copies[b];
      }
    }
    const Result alone = RepeatedBlocks(s, {k_lens.back()}).run();
    EXPECT_TRUE(std::equal(alone.o.begin(), alone.o.end(), got.o.end() - static_cast<std::ptrdiff_t>(row))) << name(k);
    EXPECT_TRUE(std::equal(alone.lse.begin(), alone.lse.end(), got.lse.end() - 2)) << name(k);
  }
}

/// So many that runs of them are longer too; the last run is not full.
TEST(GpuDecode, RunsOfManySplits) {
  PAGEDKV_NEEDS_DEVICE();
  CaseSpec s = base(DType::f16, {KvType::int4, KvType::int4}, 64, 1, 1);
  s.lengths = {{1, 140000, 0}};
  s.scale = 1.0F;
  Case c(s);
  decode_test::expect_close(s, decode_test::run(c), c.expected());
}

TEST(GpuDecode, WorkspaceMayHoldAnything) {
  PAGEDKV_NEEDS_DEVICE();
  CaseSpec s = base(DType::f16, {KvType::int8, KvType::int8}, 128, 12, 1);
  s.lengths.push_back({4, 5000, 9});
  Case c(s);
  Call call;
  const Result want = decode_test::run(c, call);
  for (const int byte : {0, 1, 0xff}) {
    for (const bool graph : {false, true}) {  // a graph's second replay finds what the first one left
      call.workspace_byte = static_cast<std::uint8_t>(byte);
      call.graph = graph;
      const Result got = decode_test::run(c, call);
      EXPECT_EQ(got.o, want.o) << byte;
      EXPECT_EQ(got.lse, want.lse) << byte;
    }
  }
}

TEST(GpuDecode, FinishedSequencesGiveZeros) {
  PAGEDKV_NEEDS_DEVICE();
  CaseSpec s = base(DType::f16, {KvType::int4, KvType::int4}, 128, 4, 1);
  s.lengths = {{1, 300, 0}, {2, 90, 1}, {1, 2600, 2}};
  Case c(s);
  const Result all = decode_test::run(c);
  s.finished = {0, 1, 0};
  Case some(s);
  const Result got = decode_test::run(some);
  for (std::size_t r = 0; r < got.lse.size(); ++r) {
    const bool finished = r >= 4 && r < 12;
    EXPECT_EQ(got.lse[r], finished ? -std::numeric_limits<double>::infinity() : all.lse[r]);
    for (std::size_t d = 0; d < 128; ++d) {
      ASSERT_EQ(got.o[r * 128 + d], finished ? 0.0 : all.o[r * 128 + d]) << r;
    }
  }
}

/// A chain is the causal order, in every bit.
TEST(GpuDecode, TreeMaskOfAChain) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    CaseSpec s = base(DType::f16, {k, k}, 64, 2, 1);
    s.lengths = {{5, 133, 0}};
    Case causal(s);
    s.tree_mask = {1, 3, 7, 15, 31};
    Case chain(s);
    const Result want = decode_test::run(causal);
    const Result got = decode_test::run(chain);
    EXPECT_EQ(got.o, want.o);
    EXPECT_EQ(got.lse, want.lse);
  }
}

TEST(GpuDecode, TreeMask) {
  PAGEDKV_NEEDS_DEVICE();
  std::mt19937 random(7);
  for (const KvType k : kFormats) {
    for (const pagedkv::ContextParallel cp : {pagedkv::ContextParallel{}, {1, 2, 8}}) {
      CaseSpec s = base(DType::f16, {k, k}, 64, 2, 1);
      s.lengths = {{5, 133, 0}, {16, 16, 1}, {16, 300, 2}};
      s.cp = cp;
      s.o_is_f32 = cp.size > 1;
      for (int i = 0; i < s.total_q(); ++i) s.tree_mask.push_back(static_cast<std::uint32_t>(random()));
      Case c(s);
      decode_test::expect_close(s, decode_test::run(c), c.expected());
    }
  }
}

TEST(GpuDecode, LogN) {
  PAGEDKV_NEEDS_DEVICE();
  CaseSpec s = base(DType::f16, {KvType::int8, KvType::int8}, 64, 2, 1);
  s.lengths = {{1, 901, 0}, {3, 32, 1}, {1, 5, 2}, {16, 901, 3}};
  s.log_n_length = 30;
  Case c(s);
  decode_test::expect_close(s, decode_test::run(c), c.expected());
  s.log_n_length = 0;
  Case plain(s);
  s.log_n_length = 900;
  Case late(s);
  EXPECT_EQ(decode_test::run(late).o, decode_test::run(plain).o) << "position 900 is not behind 900";
}

TEST(GpuDecode, MergedRanksGiveTheWhole) {
  PAGEDKV_NEEDS_DEVICE();
  CaseSpec s = base(DType::f16, {}, 128, 4, 1);
  s.lengths = {{1, 1, 0}, {2, 700, 1}, {1, 2900, 2}};
  s.sinks = true;
  s.o_is_f32 = true;
  Case whole(s);
  const Case::Expected want = whole.expected();
  std::vector<float> o_parts;
  std::vector<float> lse_parts;
  for (int rank = 0; rank < 3; ++rank) {
    s.cp = {rank, 3, 1};
    Case part(s);
    const Result r = decode_test::run(part);
    for (const double x : r.o) o_parts.push_back(static_cast<float>(x));
    for (const double x : r.lse) lse_parts.push_back(static_cast<float>(x));
  }
  s.cp = {};
  const std::size_t rows = want.exact.lse.size();
  const support::DeviceBuffer o_in = support::to_device(o_parts);
  const support::DeviceBuffer lse_in = support::to_device(lse_parts);
  const support::DeviceBuffer o(rows * 128 * sizeof(float));
  const support::DeviceBuffer lse(rows * sizeof(float));
  pagedkv::MergePartialsArgs merge;
  merge.parts = 3;
  merge.rows = static_cast<std::int64_t>(rows);
  merge.dim = 128;
  merge.o_parts = o_in.as<float>();
  merge.lse_parts = lse_in.as<float>();
  merge.o = o.data();
  merge.lse = lse.as<float>();
  pagedkv::cuda::merge_partials(merge, nullptr);
  std::vector<float> got_o(rows * 128);
  std::vector<float> got_lse(rows);
  o.get(got_o.data());
  lse.get(got_lse.data());
  Result got;
  got.o.assign(got_o.begin(), got_o.end());
  got.lse.assign(got_lse.begin(), got_lse.end());
  decode_test::expect_close(s, got, want);
}

/// The cases above run with Validation::full as well; here it has something to find.
TEST(GpuDecode, FullValidationNamesTheEntry) {
  PAGEDKV_NEEDS_DEVICE();
  CaseSpec s = base(DType::f16, {}, 128, 4, 1);
  s.lengths = {{1, 300, 0}, {1, 90, 1}};
  Case c(s);
  pagedkv::AttentionArgs a = c.args();
  const std::vector<std::int32_t> cu_q = {0, 1, 2};
  std::vector<std::int32_t> cu_k = {0, 300, 290};
  const std::vector<std::int32_t> cu_blocks = {0, 5, 7};
  std::vector<std::int32_t> indices = {0, 1, 2, 3, 4, 5, 6};
  const support::DeviceBuffer device_cu_q = support::to_device(cu_q);
  support::DeviceBuffer device_cu_k = support::to_device(cu_k);
  const support::DeviceBuffer device_blocks = support::to_device(cu_blocks);
  support::DeviceBuffer device_indices = support::to_device(indices);
  const support::DeviceBuffer slab(7 * static_cast<std::size_t>(a.layout.block_bytes));
  const support::DeviceBuffer rows(8 * 128 * 2);
  a.cu_q = device_cu_q.as<std::int32_t>();
  a.cu_k = device_cu_k.as<std::int32_t>();
  a.table = {};
  a.table.indices = device_indices.as<std::int32_t>();
  a.table.cu_blocks = device_blocks.as<std::int32_t>();
  a.table.slab = slab.data();
  a.table.slab_blocks = 7;
  a.q = rows.data();
  a.o = rows.data();
  const support::DeviceBuffer memory(pagedkv::cuda::decode_workspace_bytes(a));
  const auto rejected = [&] {
    try {
      pagedkv::cuda::decode(a, {memory.data(), memory.bytes()}, pagedkv::cuda::Validation::full, nullptr);
    } catch (const pagedkv::Error& e) {
      return e.argument();
    }
    return std::string("nothing");
  };
  EXPECT_EQ(rejected(), "AttentionArgs.cu_k[2]");
  cu_k[2] = 390;
  device_cu_k.set(cu_k.data());
  EXPECT_EQ(rejected(), "nothing");
  indices[6] = 7;
  device_indices.set(indices.data());
  EXPECT_EQ(rejected(), "AttentionArgs.table.indices[6]");
  support::cuda_ok(cudaDeviceSynchronize());
}

TEST(GpuDecode, BadArgumentsThrowBeforeTheLaunch) {
  CaseSpec s = base(DType::f16, {}, 128, 4, 1);
  s.lengths = {{1, 3000, 0}};
  Case c(s);
  float o[4];
  const auto rejects = [&](const char* argument, auto change) {
    pagedkv::AttentionArgs a = c.args();
    a.o = reinterpret_cast<void*>(std::uintptr_t{4096});
    pagedkv::Workspace w{reinterpret_cast<void*>(std::uintptr_t{4096}), std::size_t{1} << 40};
    change(a, w);
    try {
      pagedkv::cuda::decode(a, w, nullptr);
      ADD_FAILURE() << argument << " was accepted";
    } catch (const pagedkv::Error& e) {
      EXPECT_NE(e.argument().find(argument), std::string::npos) << e.what();
    }
  };
  using Args = pagedkv::AttentionArgs;
  using Space = pagedkv::Workspace;
  rejects("causal", [](Args& a, Space&) { a.causal = false; });
  rejects("max_q_len", [](Args& a, Space&) { a.max_q_len = 17; });
  rejects("max_q_len", [](Args& a, Space&) { a.max_q_len = 0; });
  rejects("q_heads", [](Args& a, Space&) { a.q_heads = 0; });
  rejects("log_n_length", [](Args& a, Space&) { a.log_n_length = 1; });
  rejects("softcap", [](Args& a, Space&) { a.softcap = -1; });
  rejects("cu_q", [](Args& a, Space&) { a.cu_q = nullptr; });
  rejects("o", [&](Args& a, Space&) { a.o = reinterpret_cast<char*>(o) + 1; });
  rejects("bytes", [](Args& a, Space& w) { w.bytes = pagedkv::cuda::decode_workspace_bytes(a) - 1; });
  rejects("data", [](Args&, Space& w) { w.data = nullptr; });
  CaseSpec short_blocks = s;
  short_blocks.config.block_len = 8;
  const Case other(short_blocks);
  rejects("block_len", [&](Args& a, Space&) { a.layout = other.layout(); });
}

}  // namespace
