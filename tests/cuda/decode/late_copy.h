#pragma once
// A kernel that is slow to write what the kernel after it needs, and lets that one start at once.

#include <cuda_runtime.h>

#include <cstdint>

namespace decode_test {

/// to[i][j] = from[i][j] for i < 2 and j < n, some ten microseconds after the next kernel of the stream may have
/// started.
void late_copy(std::int32_t* const (&to)[2], const std::int32_t* const (&from)[2], int n, cudaStream_t stream);

}  // namespace decode_test
