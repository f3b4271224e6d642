#pragma once
// Rotary position embedding in long double.

#include <array>
#include <vector>

namespace oracle {

enum class RopeKind { none, standard, linear, dynamic, yarn, llama3 };
enum class MropeKind { none, chunked, interleaved };

struct Rope {
  RopeKind kind = RopeKind::none;
  bool half_split = false;  // pairs (i, i + dim/2) instead of (2i, 2i+1)
  int dim = 0;
  double base = 10000;  // for `dynamic` the base of the sequence
  double factor = 1;
  int original_max_position = 0;
  double attention_factor = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  MropeKind mrope = MropeKind::none;
  std::array<int, 3> section{};
};

/// Radians per position of pair i.
long double frequency(const Rope& r, int pair);

/// What sine and cosine are multiplied by.
long double magnitude(const Rope& r);

/// Axis (T, H, W) whose position a pair turns by.
int axis_of(const Rope& r, int pair);

/// Rotates the first r.dim channels of a row at a position (one value per axis).
void rotate(const Rope& r, std::array<long long, 3> position, std::vector<double>& row);

}  // namespace oracle
