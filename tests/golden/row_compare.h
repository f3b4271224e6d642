#pragma once
// Stored rows of a recorded case, ours and the original's, against the exact values.

#include <functional>
#include <string>
#include <vector>

#include "golden/golden_case.h"
#include "oracle/quant.h"
#include "oracle/rope.h"

namespace golden {

/// One written row: where it lies in the case's layer bytes, and which input it came from.
struct Row {
  std::int32_t sequence = 0;
  std::int32_t position = 0;
  std::int32_t head = 0;
  bool value = false;   ///< of V, else of K
  bool is_new = false;  ///< else history: neither bias nor rotation
  bool rotated = false;
  std::int64_t input_row = 0;  ///< row of [tokens][2 kv_heads] of the input it is in
  std::int64_t data = 0;       ///< byte offsets in the layer bytes
  std::int64_t param = 0;
  std::int64_t data_bytes = 0;
  std::int64_t param_bytes = 0;

  std::string text() const;
};

/// Calls f for every row that the case's rank writes.
void for_each_row(const CacheCase& c, const std::function<void(const Row&)>& f);

oracle::Type type_of(const CacheCase& c);

/// The rows before rounding: bias and RoPE in double.
class Truth {
 public:
  explicit Truth(const CacheCase& c);

  std::vector<double> row(const Row& r) const;
  /// Largest magnitude of the row before rotation.
  double largest(const Row& r) const;
  /// A row whose scale is a normal number of T well inside its range; false for constant rows, NaN and infinity, and
  /// for ranges where the original's arithmetic in f16 leaves its range (above 65504, or 1/scale beyond it).
  bool ordinary(const Row& r) const;

 private:
  std::vector<double> unrotated(const Row& r) const;

  const CacheCase& case_;
  oracle::Type type_;
  oracle::Rope rope_;
  support::NpyArray history_;
  support::NpyArray new_;
  support::NpyArray bias_[2];
};

/// Codes and parameters of a quantised row.
oracle::QuantRow stored_row(const CacheCase& c, const Row& row, const std::vector<char>& layer_bytes);

/// Errors of code * scale + zero against the truth, in ideal steps (range / (2^n - 1)).
struct ErrorSum {
  double squares = 0;
  double largest = 0;
  std::int64_t count = 0;
  double rms() const;
  void add(double error);
};

struct ErrorTable {
  ErrorSum ours;
  ErrorSum theirs;
  ErrorSum ideal;  ///< steps and minimum not rounded to T
  int rows = 0;
};

/// Over the case's ordinary rows.
ErrorTable compare_errors(const CacheCase& c, const std::vector<char>& ours, const std::vector<char>& theirs);

}  // namespace golden
