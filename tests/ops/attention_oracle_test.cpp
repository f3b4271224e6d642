// Attention against the float64 oracle over types, formats, dimensions and options.

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

#include "ops/attention_case.h"
#include "ops/on_targets.h"

namespace ops {
namespace {

using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;

constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};
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
  s.lengths = {{1, 1, 0}, {1, 64, 1}, {0, 5, 2}, {3, 65, 3}, {1, 200, 4}, {0, 0, 5}, {16, 16, 6}, {2, 600, 7}};
  return s;
}

void check(const CaseSpec& spec) {
  SCOPED_TRACE(describe(spec));
  Case c(spec);
  const Case::Expected want = c.expected();
  const bool decode_only = !spec.finished.empty() || !spec.tree_mask.empty() || spec.log_n_length > 0;
  if (!decode_only) expect_close(spec, c.run(Op::prefill, 2), want);
  bool decodes = spec.causal;
  for (const Lengths& l : spec.lengths) decodes = decodes && l.q_len <= 16;
  if (decodes) expect_close(spec, c.run(Op::decode, 2), want);
}

class AttentionOracle : public OnTarget {};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionOracle, all_targets(), target_name);

TEST_P(AttentionOracle, TypesAndFormats) {
  for (const DType type : kTypes) {
    for (const KvType k : kFormats) {
      for (const KvType v : kFormats) check(base(type, {k, v}, 64, 6, 2));
    }
  }
}

TEST_P(AttentionOracle, HeadDims) {
  for (const int d : {16, 32, 48, 64, 80, 96, 112, 128, 192, 256, 576}) {
    for (const KvType k : kFormats) check(base(DType::f16, {k, k}, d, 4, 1));
  }
}

TEST_P(AttentionOracle, HeadRatios) {
  for (const auto& [q, kv] : {std::pair{1, 1}, {3, 3}, {2, 1}, {9, 3}, {5, 1}, {7, 1}, {8, 1}, {16, 2}, {33, 1}}) {
    check(base(DType::f16, {KvType::same, KvType::int8}, 64, q, kv));
  }
}

TEST_P(AttentionOracle, MoreQueryHeadsThanAnItemHolds) {
  CaseSpec s = base(DType::f16, {}, 16, 300, 1);
  s.lengths = {{1, 70, 0}, {2, 3, 1}};
  check(s);
}

TEST_P(AttentionOracle, LongPrefill) {
  for (const KvType k : kFormats) {
    CaseSpec s = base(DType::f16, {k, k}, 32, 6, 2);
    s.lengths = {{100, 100, 0}, {130, 700, 1}, {1, 1100, 2}, {45, 46, 3}};
    check(s);
  }
}

TEST_P(AttentionOracle, Options) {
  for (const KvType k : kFormats) {
    for (const int window : {0, 1, 7, 64, 100}) {
      for (const float softcap : {0.0F, 1.5F, 30.0F}) {
        for (const bool sinks : {false, true}) {
          CaseSpec s = base(DType::f16, {k, k}, 32, 3, 1);
          s.window = window;
          s.softcap = softcap;
          s.sinks = sinks;
          s.scale = 0.4F;
          s.o_is_f32 = true;
          s.pointer_table = true;
          check(s);
        }
      }
    }
  }
}

TEST_P(AttentionOracle, NotCausal) {
  for (const KvType k : kFormats) {
    CaseSpec s = base(DType::bf16, {k, k}, 64, 4, 2);
    s.causal = false;
    s.lengths = {{20, 40, 0}, {1, 1, 1}, {70, 70, 2}, {0, 9, 3}, {5, 600, 4}};
    check(s);
  }
}

TEST_P(AttentionOracle, BlockLengths) {
  for (const int block_len : {1, 5, 16, 24, 32, 63, 96, 128, 1000}) {
    for (const KvType k : kFormats) {
      CaseSpec s = base(DType::f16, {k, k}, 64, 4, 2);
      if (block_len % 4 != 0 && k != KvType::same) continue;  // parameter regions would not be aligned
      s.config.block_len = block_len;
      check(s);
    }
  }
}

TEST_P(AttentionOracle, SharedRow) {
  for (const DType type : kTypes) {
    for (const KvType k : kFormats) {
      CaseSpec s = base(type, {k, k}, 576, 16, 1);
      s.config.shared_kv = true;
      s.lengths = {{1, 1, 0}, {1, 65, 1}, {2, 130, 2}};
      s.v_offset = 64;
      s.v_dim = 512;
      check(s);
      s.v_offset = 0;
      s.v_dim = 0;
      check(s);
      s.config.head_dim = 96;
      s.q_heads = 3;
      s.v_offset = 16;
      s.v_dim = 48;
      check(s);
    }
  }
}

TEST_P(AttentionOracle, ContextParallelRanks) {
  for (const int size : {2, 3, 4}) {
    for (const int interleave : {1, 5, 64}) {
      for (int rank = 0; rank < size; ++rank) {
        for (const int window : {0, 90}) {
          CaseSpec s = base(DType::f16, {KvType::int8, KvType::int4}, 32, 2, 1);
          s.cp = {rank, size, interleave};
          s.o_is_f32 = true;
          s.sinks = window > 0;
          s.window = window;
          check(s);
        }
      }
    }
  }
}

TEST_P(AttentionOracle, StridedHeads) {
  CaseSpec s = base(DType::bf16, {KvType::same, KvType::int4}, 64, 6, 2);
  s.head_gap = 8;
  check(s);
}

/// Finished sequences among others; the sink still counts.
TEST_P(AttentionOracle, FinishedSequences) {
  for (const bool sinks : {false, true}) {
    CaseSpec s = base(DType::f16, {KvType::int8, KvType::same}, 64, 4, 2);
    s.finished = {0, 1, 0, 1, 0, 0, 0, 1};
    s.sinks = sinks;
    check(s);
  }
}

/// Random trees of new tokens. With a history of 0 a token may see none at all; tiles begin within the new tokens.
TEST_P(AttentionOracle, TreeMasks) {
  std::mt19937 random(7);
  for (const KvFormat format : {KvFormat{}, KvFormat{KvType::int8, KvType::int8}, KvFormat{KvType::int4, KvType::same},
                                KvFormat{KvType::same, KvType::int4}}) {
    for (const pagedkv::ContextParallel cp : {pagedkv::ContextParallel{}, {1, 2, 1}, {0, 2, 8}}) {
      for (const int window : {0, 10}) {
        CaseSpec s = base(DType::f16, format, 64, 6, 2);
        s.lengths = {{16, 16, 0}, {9, 133, 1}, {16, 520, 2}, {1, 1, 3}, {16, 128, 4}, {5, 700, 5}};
        s.cp = cp;
        s.window = window;
        for (int i = 0; i < s.total_q(); ++i) s.tree_mask.push_back(static_cast<std::uint32_t>(random()));
        check(s);
      }
    }
  }
}

TEST_P(AttentionOracle, LogN) {
  for (const float softcap : {0.0F, 20.0F}) {
    CaseSpec s = base(DType::bf16, {KvType::int8, KvType::int4}, 64, 4, 1);
    s.log_n_length = 64;
    s.softcap = softcap;
    check(s);
  }
}

}  // namespace
}  // namespace ops
