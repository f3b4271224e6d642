#pragma once
// A case of tests/ops/attention_case.h run on the device.

#include <cstdint>
#include <optional>
#include <vector>

#include "ops/attention_case.h"
#include "pagedkv/cuda.h"

namespace decode_test {

/// How the operation is called, besides what the case says.
struct Call {
  int more_q_len = 0;  ///< by how much the stated maxima exceed the true ones
  int more_k_len = 0;
  bool graph = false;  ///< captured, then replayed twice
  /// In place of the case's own, with pointers to host memory.
  std::optional<pagedkv::AttentionArgs> args;
  std::int64_t mrope_rows = 0;  ///< of args->rope.mrope_position_ids
  /// cu_q and cu_k that the device gets between the two replays of the graph; empty: they stay.
  std::vector<std::int32_t> later_cu_q;
  std::vector<std::int32_t> later_cu_k;
  /// batch + 1 values that cu_q and cu_k have until kernels that run when decode is launched put the right ones there;
  /// empty: they are right from the start.
  std::vector<std::int32_t> early_lengths;
  std::vector<std::int32_t> early_cu_k;  ///< what cu_k has in place of early_lengths; empty: those
  std::uint8_t workspace_byte = 0xcd;    ///< that the workspace is full of
  std::vector<char>* blocks = nullptr;   ///< gets the blocks as the call leaves them, in the order of the table
};

/// Runs decode on poisoned outputs and a poisoned workspace of exactly the size asked for. Fails the test if anything
/// outside the rows was written or an element was not.
ops::Result run(ops::Case& c, const Call& call = {});

/// 2 * `steps` calls on one stream: a plain one, and one with the options of `fused` whose queries and new keys and
/// values are the output of the plain one, which is another one in each step. With `apart` each call has ended before
/// the next one starts.
/// @returns the outputs of the fused calls
std::vector<std::uint8_t> run_chain(ops::Case& c, const pagedkv::AttentionArgs& fused, int steps, bool apart);

/// Compares with the oracle. The bound: probabilities are rounded to f16 (to bf16 for unquantised bf16 values) before
/// they meet the values, each with a relative error of half an ulp, and a row's values differ from its offset by at
/// most twice the largest value; on top of that what ops::expect_close() allows. The relative error of all rows
/// together (2-norm) must stay below the same half ulp.
void expect_close(const ops::CaseSpec& spec, const ops::Result& got, const ops::Case::Expected& want);

}  // namespace decode_test
