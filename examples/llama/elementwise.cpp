#include "elementwise.h"

#include <algorithm>
#include <cmath>

#include "pagedkv/core/half.h"
#include "sum.h"

namespace llama {
namespace {

template <class T>
void round_all(const float* x, std::int64_t n, std::uint16_t* y) {
#pragma omp parallel for
  for (std::int64_t i = 0; i < n; ++i) y[i] = pagedkv::core::from_float<T>(x[i]).bits;
}

}  // namespace

void rms_norm(const float* x, std::span<const float> weight, float eps, std::int64_t rows, float* y) {
  const auto n = static_cast<std::int64_t>(weight.size());
#pragma omp parallel for
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * n;
    float* out = y + r * n;
    const double squares = sum_over(n, [in](std::int64_t i) { return in[i] * in[i]; });
    const auto scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + double{eps}));
    for (std::int64_t i = 0; i < n; ++i) out[i] = in[i] * scale * weight[static_cast<std::size_t>(i)];
  }
}

void gather_rows(std::span<const float> table, std::span<const std::int32_t> tokens, std::int64_t width, float* y) {
  for (const std::int32_t token : tokens) {
    y = std::copy_n(table.data() + token * width, width, y);
  }
}

void round_to(pagedkv::DType type, const float* x, std::int64_t n, std::uint16_t* y) {
  if (type == pagedkv::DType::f16) {
    round_all<pagedkv::half_t>(x, n, y);
  } else {
    round_all<pagedkv::bfloat16_t>(x, n, y);
  }
}

}  // namespace llama
