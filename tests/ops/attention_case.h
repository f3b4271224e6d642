#pragma once
// A batch of made-up sequences with a filled cache, to run attention on and compare with the oracle.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "oracle/attention.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cpu.h"
#include "pagedkv/ops.h"

namespace ops {

/// Sequence `id` of a case: its keys, values and queries follow from the id and the position alone.
struct Lengths {
  int q_len;
  int k_len;
  int id = 0;
};

struct CaseSpec {
  pagedkv::CacheConfig config;
  int q_heads = 1;
  std::vector<Lengths> lengths;
  bool causal = true;
  int window = 0;
  float softcap = 0;
  float scale = 0;  // 0: the default
  bool sinks = false;
  bool o_is_f32 = false;
  pagedkv::ContextParallel cp;
  int v_offset = 0;
  int v_dim = 0;
  bool pointer_table = false;
  std::uint64_t block_order = 1;  // seeds the permutation of physical blocks
  std::int64_t head_gap = 0;      // elements of padding behind each head of q and o
  // Of decode only; empty: null.
  std::vector<std::uint8_t> finished;
  std::vector<std::uint32_t> tree_mask;
  int log_n_length = 0;
  std::vector<double> q_factors;  // of the q heads, in turns; empty: 1

  int value_dim() const { return v_dim > 0 ? v_dim : config.head_dim; }
  int total_q() const;
};

std::string describe(const CaseSpec& spec);

/// o [token][q_head][v_dim] and lse [token][q_head].
struct Result {
  std::vector<double> o;
  std::vector<double> lse;
  std::vector<std::uint32_t> bits;  // of one token after the other: o, then lse
  std::size_t bits_of_token = 0;

  /// Bits of tokens [first, first + count).
  std::vector<std::uint32_t> tokens(int first, int count) const;
};

enum class Op { decode, prefill };

/// Memory of a case and the arguments that describe it.
class Case {
 public:
  explicit Case(const CaseSpec& spec);

  const CaseSpec& spec() const { return spec_; }
  const pagedkv::BlockLayout& layout() const { return layout_; }
  pagedkv::AttentionArgs args();

  /// Runs the operation on poisoned outputs and a poisoned workspace of exactly the size asked for. Fails the test if
  /// anything outside the rows of o and lse was written or an element was not.
  Result run(Op op, int threads) { return run(op, threads, args()); }
  /// The same with other arguments; o and lse are this case's.
  Result run(Op op, int threads, pagedkv::AttentionArgs a);

  /// The stored row of a local token, K or V, by the oracle's reading of the cache.
  std::vector<double> stored_row(int sequence, int kv_head, bool value, int local) const;
  /// Overwrites it with x throughout.
  void store_row(int sequence, int kv_head, bool value, int local, double x);

  /// Fills what no token of any sequence uses, in all blocks, with a byte.
  void fill_unused(std::uint8_t byte);

  /// What the oracle expects, and the largest errors of a plain float32 implementation against it (rounded to the type
  /// of o).
  struct Expected {
    Result exact;
    double naive_o = 0;
    double naive_lse = 0;
    double largest_value = 0;
    double largest_score = 0;
  };
  Expected expected() const;

  /// The block that holds a local token.
  char* block_of(int sequence, int local) const;

 private:
  std::vector<double> query(int sequence, int token, int head) const;
  /// Positions among `owned` that a new token sees.
  std::vector<int> seen_by(int sequence, int token, const std::vector<int>& owned) const;

  CaseSpec spec_;
  pagedkv::BlockLayout layout_;
  std::vector<std::int32_t> cu_q_;
  std::vector<std::int32_t> cu_k_;
  std::vector<std::int32_t> cu_blocks_;
  std::vector<std::int32_t> indices_;
  std::vector<char*> pointers_;
  std::vector<float> sinks_;
  std::unique_ptr<char[]> slab_memory_;
  char* slab_ = nullptr;
  std::vector<std::uint8_t> q_;  // packed [token][head][head_dim + gap], behind alignment
  std::vector<std::uint8_t> o_;
  std::vector<float> lse_;
};

/// Compares with the oracle: at most twice the plain implementation's error, one rounding to the type of o, and a few
/// float32 roundings of the largest value (for cases where the plain one happens to be exact).
void expect_close(const CaseSpec& spec, const Result& got, const Case::Expected& want);

}  // namespace ops
