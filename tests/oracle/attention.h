#pragma once
// Attention of one query over plain arrays, by definition.

#include <optional>
#include <span>
#include <vector>

namespace oracle {

struct AttentionOptions {
  double scale = 1;
  double softcap = 0;  // 0: none
  std::optional<double> sink;
};

struct AttentionRow {
  std::vector<double> o;
  double lse = 0;
};

/// Positions below k_len that the query at `position` sees, out of `available` ones.
std::vector<int> visible_positions(const std::vector<int>& available, int position, int k_len, bool causal, int window);

/// Softmax of the scores of the keys, times the values. keys[i] and values[i] belong together. Without keys o is 0 and
/// lse the sink, or minus infinity. All arithmetic in double.
AttentionRow attend(std::span<const double> q, const std::vector<std::span<const double>>& keys,
                    const std::vector<std::span<const double>>& values, std::size_t v_dim,
                    const AttentionOptions& options);

/// The same formula in float32, one operation after the other: how wrong a plain implementation is.
AttentionRow attend_in_float(std::span<const double> q, const std::vector<std::span<const double>>& keys,
                             const std::vector<std::span<const double>>& values, std::size_t v_dim,
                             const AttentionOptions& options);

}  // namespace oracle
