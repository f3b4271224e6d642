#pragma once
// The loops between the matmuls and the cache.

#include <cstdint>
#include <span>

#include "pagedkv/types.h"

namespace llama {

/// y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight, for `rows` rows of weight.size() elements.
void rms_norm(const float* x, std::span<const float> weight, float eps, std::int64_t rows, float* y);

/// Row r of y becomes row tokens[r] of `table`, which has rows of `width` elements.
void gather_rows(std::span<const float> table, std::span<const std::int32_t> tokens, std::int64_t width, float* y);

/// Rounds n floats to f16 or bf16.
void round_to(pagedkv::DType type, const float* x, std::int64_t n, std::uint16_t* y);

}  // namespace llama
