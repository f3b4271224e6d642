#pragma once
// Stands in for src/cuda/ptx/mma.cuh.

#include <cstdint>

#include "emulator/matrix.h"

namespace pagedkv::cuda::ptx {

using Place = std::source_location;

inline void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                    Place where = Place::current()) {
  emulation::mma(emulation::kMmaF16, d, a, b, c, where);
}
inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                     Place where = Place::current()) {
  emulation::mma(emulation::kMmaBf16, d, a, b, c, where);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], std::uint32_t shared_address, Place where = Place::current()) {
  emulation::ldmatrix(emulation::kLdmatrix, r, shared_address, where);
}
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], std::uint32_t shared_address, Place where = Place::current()) {
  emulation::ldmatrix(emulation::kLdmatrixTrans, r, shared_address, where);
}
inline std::uint32_t movmatrix(std::uint32_t x, Place where = Place::current()) {
  return emulation::movmatrix(x, where);
}

}  // namespace pagedkv::cuda::ptx
