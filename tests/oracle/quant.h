#pragma once
// Quantised rows in double: what an ideal encoder stores, how far from it a stored row may be, what a reader gets.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "oracle/number.h"

namespace oracle {

/// A quantised row as stored: x ~ code * scale + zero.
struct QuantRow {
  double scale = 0;
  double zero = 0;
  std::vector<int> codes;
};

/// Reads a row of `codes` n-bit codes and its {scale, zero} of type t from memory.
QuantRow read_row(Type t, int bits, std::size_t codes, const void* data, const void* params);

/// The ideal row: minimum and step rounded to t, codes to nearest against those. Rows that cannot be represented (NaN,
/// infinity, a step or minimum beyond t, a range beyond float32) have scale 0 and zero NaN.
QuantRow quantise(Type t, int bits, std::span<const double> x);

/// Empty if `stored` is as good as quantise(): parameters within half a unit of their last place of the exact ones and
/// codes nearest against the stored parameters, both up to `error`, the uncertainty of each x (float32 arithmetic
/// before the encoder); else what is wrong.
std::string why_not_nearest(Type t, int bits, std::span<const double> x, double error, const QuantRow& stored);

/// What a reader of type t gets for element i: code * scale + zero, rounded once.
double dequantise(Type t, const QuantRow& row, std::size_t i);

}  // namespace oracle
