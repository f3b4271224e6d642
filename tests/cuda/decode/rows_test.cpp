// Kernels for 4, 8 and 16 rows (a row is a query of a head): which one a call gets shows in no bit, and what a row does
// not see shows nowhere in it.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "cuda/decode/decode_case.h"
#include "cuda/device_ops.h"
#include "pagedkv/types.h"

namespace {

using decode_test::Call;
using ops::Case;
using ops::CaseSpec;
using ops::Result;
using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;

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
  return s;
}

/// Runs a case of up to 4 rows with the kernels for 4, 8 and 16 of them.
void check_every_kernel(const CaseSpec& s) {
  SCOPED_TRACE(ops::describe(s));
  const int group = s.q_heads / s.config.kv_heads;
  int q_len = 0;
  for (const ops::Lengths& l : s.lengths) q_len = std::max(q_len, l.q_len);
  ASSERT_LE(q_len * group, 4);
  Case c(s);
  const Result want = decode_test::run(c);
  decode_test::expect_close(s, want, c.expected());
  for (const int rows : {8, 16}) {
    Call call;
    call.more_q_len = rows / group - q_len;
    const Result got = decode_test::run(c, call);
    EXPECT_EQ(got.o, want.o) << rows;
    EXPECT_EQ(got.lse, want.lse) << rows;
  }
}

TEST(GpuDecodeRows, TypesAndFormats) {
  PAGEDKV_NEEDS_DEVICE();
  for (const DType type : {DType::f16, DType::bf16}) {
    for (const KvType k : kFormats) {
      for (const int dim : {64, 128}) {
        CaseSpec s = base(type, {k, k}, dim, 4, 1);
        s.lengths = {{1, 1, 0}, {1, 64, 1}, {0, 5, 2}, {1, 65, 3}, {1, 257, 4}, {1, 5003, 5}};
        check_every_kernel(s);
      }
    }
  }
}

TEST(GpuDecodeRows, RatiosAndNewTokens) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    for (const int group : {1, 2, 3}) {
      CaseSpec s = base(DType::f16, {k, k}, 64, 2 * group, 2);
      s.lengths = {{1, 333, 0}, {4 / group, 70, 1}, {4 / group, 4 / group, 2}, {1, 2100, 3}};
      check_every_kernel(s);
    }
  }
}

TEST(GpuDecodeRows, Options) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    for (const int dim : {64, 128}) {
      CaseSpec plain = base(DType::f16, {k, k}, dim, 2, 1);
      plain.lengths = {{2, 333, 0}, {1, 70, 1}, {2, 2, 2}, {2, 2100, 3}};
      CaseSpec s = plain;
      s.window = 50;
      s.sinks = true;
      check_every_kernel(s);
      s = plain;
      s.softcap = 5.0F;
      s.log_n_length = 100;
      check_every_kernel(s);
      s = plain;
      s.tree_mask = {1, 2, 1, 1, 3, 3, 2};
      s.cp = {1, 2, 8};
      s.o_is_f32 = true;
      check_every_kernel(s);
    }
  }
}

/// The last token's, alone and behind others of the call: in one tile of rows and in two.
TEST(GpuDecodeRows, BitsDoNotDependOnQLen) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    for (const int dim : {64, 128}) {
      for (const int k_len : {77, 1000, 5003, 66000}) {
        if (k_len > 65536 && (dim != 64 || k == KvType::same)) continue;  // no splits of their own length
        CaseSpec s = base(DType::f16, {k, k}, dim, 4, 1);
        s.lengths = {{1, k_len, 0}};
        Case one(s);
        const Result want = decode_test::run(one);
        s.lengths = {{4, k_len, 0}};
        Case four(s);
        const Result got = decode_test::run(four);
        const auto row = static_cast<std::size_t>(4 * dim);
        for (std::size_t i = 0; i < row; ++i) {
          ASSERT_EQ(got.o[3 * row + i], want.o[i]) << name(k) << " dim " << dim << " k_len " << k_len << " " << i;
        }
        for (std::size_t h = 0; h < 4; ++h) ASSERT_EQ(got.lse[12 + h], want.lse[h]) << name(k) << " k_len " << k_len;
      }
    }
  }
}

/// Quantised keys want q in a range, so rows are scaled by powers of two: each by its own, and back.
TEST(GpuDecodeRows, QueriesOfAnySize) {
  PAGEDKV_NEEDS_DEVICE();
  for (const DType type : {DType::f16, DType::bf16}) {
    // f16: with the smallest factor most elements are subnormal.
    const std::vector<double> factors =
        type == DType::f16 ? std::vector<double>{0x1p-20, 1, 0x1p13} : std::vector<double>{0x1p-90, 1, 0x1p90};
    for (const KvType k : kFormats) {
      for (const int dim : {64, 128}) {
        CaseSpec s = base(type, {k, k}, dim, 4, 1);
        s.lengths = {{1, 333, 0}, {3, 70, 1}};
        std::vector<double> mixed = factors;
        mixed.push_back(0);
        for (std::size_t f = 0; f < factors.size(); ++f) {
          s.scale = static_cast<float>(0.09 / factors[f]);
          s.q_factors = {factors[f]};
          SCOPED_TRACE(ops::describe(s) + ", factor " + std::to_string(std::log2(factors[f])));
          Case alone(s);
          const Result want = decode_test::run(alone);
          decode_test::expect_close(s, want, alone.expected());
          if (type == DType::bf16) continue;  // the scores of the others would have no place in float32
          s.q_factors = mixed;
          const Result got = decode_test::run(*std::make_unique<Case>(s));
          for (std::size_t row = 0; row < want.lse.size(); ++row) {
            if (row % 4 != f) continue;
            ASSERT_EQ(got.lse[row], want.lse[row]) << row;
            const std::size_t first = row * static_cast<std::size_t>(dim);
            for (std::size_t d = 0; d < static_cast<std::size_t>(dim); ++d) {
              ASSERT_EQ(got.o[first + d], want.o[first + d]) << row << ' ' << d;
            }
          }
        }
        s.scale = 0;
        s.q_factors = {0, 1};
        Case zeros(s);
        decode_test::expect_close(s, decode_test::run(zeros), zeros.expected());
      }
    }
  }
}

/// Token 1 of a tree has keys and values that are not finite, and no other token sees it.
TEST(GpuDecodeRows, HiddenTokensMayBeAnything) {
  PAGEDKV_NEEDS_DEVICE();
  for (const DType type : {DType::f16, DType::bf16}) {
    for (const KvType k : kFormats) {
      for (const KvType v : {KvType::int8, KvType::int4}) {
        for (const int group : {1, 2, 4}) {  // kernels for 4, 8 and 16 rows where there are these
          CaseSpec s = base(type, {k, v}, 64, group, 1);
          SCOPED_TRACE(ops::describe(s));
          s.lengths = {{4, 133, 0}};
          s.tree_mask = {1, 3, 5, 13};
          Case tree(s);
          const Result before = decode_test::run(tree);
          const int row = group * 64;
          for (const bool value : {false, true}) {
            tree.store_row(0, 0, value, 130, std::numeric_limits<double>::quiet_NaN());
            const Result after = decode_test::run(tree);
            for (int token = 0; token < 4; ++token) {
              for (int i = token * row; i < (token + 1) * row; ++i) {
                const auto at = static_cast<std::size_t>(i);
                if (token == 1) {
                  ASSERT_TRUE(std::isnan(after.o[at])) << i;
                } else {
                  ASSERT_EQ(after.o[at], before.o[at]) << i;
                }
              }
            }
          }
        }
      }
    }
  }
}

/// Tokens that share 16 bytes of parameters with the first one of the window.
TEST(GpuDecodeRows, TokensInFrontOfAWindowMayBeAnything) {
  PAGEDKV_NEEDS_DEVICE();
  for (const KvType k : kFormats) {
    for (const KvType v : kFormats) {
      for (const int q_len : {1, 2}) {
        CaseSpec s = base(DType::f16, {k, v}, 64, 4, 1);
        SCOPED_TRACE(ops::describe(s));
        s.lengths = {{q_len, 200, 0}};
        s.window = 10;
        Case c(s);
        const Result before = decode_test::run(c);
        const int first = 200 - q_len - 10 + 1;
        for (int token = first - 4; token < first; ++token) {
          for (const bool value : {false, true}) {
            c.store_row(0, 0, value, token, std::numeric_limits<double>::quiet_NaN());
          }
        }
        const Result after = decode_test::run(c);
        EXPECT_EQ(after.o, before.o);
        EXPECT_EQ(after.lse, before.lse);
      }
    }
  }
}

}  // namespace
