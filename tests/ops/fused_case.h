#pragma once
// A case whose new tokens decode() writes itself, beside the calls that it stands for: write_kv, apply_rope, and decode
// without its prologue.

#include <cstdint>
#include <string>
#include <vector>

#include "ops/attention_case.h"
#include "support/memory.h"

namespace ops {

struct FusedSpec {
  CaseSpec base;
  bool write = true;
  bool k_bias = false;
  bool v_bias = false;
  bool q_bias = false;
  bool rotate_q = false;
  pagedkv::RopeType rope = pagedkv::RopeType::none;
  pagedkv::RopePairs pairs = pagedkv::RopePairs::interleaved;
  int rope_dim = 0;
  bool own_base = false;  ///< a RoPE base per sequence
  pagedkv::MropeMode mrope = pagedkv::MropeMode::none;
  int readonly_blocks = 0;    ///< of every sequence
  bool strided = false;       ///< k and v interleaved in one array, heads apart
  std::uint32_t spoiled = 0;  ///< kind of rows: 0 ordinary, 1 constant, 2 huge and tiny
};

std::string describe(const FusedSpec& spec);

/// A few RoPE kinds, both pair styles, partial dimensions, mrope, in turn: number `i` set on a spec.
void set_rope(FusedSpec& spec, int i);

/// The same, and biases, rotated queries, strides and the kind of table as well.
void set_all(FusedSpec& spec, int i);

/// Bytes of the blocks that a host block table lists, in its order.
std::vector<char> table_blocks(const pagedkv::AttentionArgs& host);

class FusedCase {
 public:
  explicit FusedCase(const FusedSpec& spec);

  Case& plain() { return case_; }
  /// All in one call; pointers to host memory.
  pagedkv::AttentionArgs fused();
  /// Decode alone, with the queries that apply_rope() gives.
  pagedkv::AttentionArgs rest();
  /// The cache before the call: rows that are to be written hold a pattern.
  void reset();
  /// The new tokens by write_kv().
  void write();
  /// mrope_position_ids has this many rows.
  std::int64_t mrope_rows() const { return static_cast<std::int64_t>(ids_.size()) / 3; }

 private:
  pagedkv::WriteKvArgs write_args();

  FusedSpec spec_;
  Case case_;
  support::Tensor kv_;
  support::Tensor bias_;
  support::Tensor q_bias_;
  support::Tensor q_;
  std::vector<std::int32_t> readonly_;
  std::vector<float> base_;
  std::vector<std::int32_t> ids_;
  std::vector<std::int32_t> offsets_;
  std::vector<std::int32_t> lengths_;
  std::vector<std::int32_t> delta_;
  pagedkv::core::RopeTable rope_;
};

}  // namespace ops
