#pragma once
// Warp matrix instructions.

#include <cstdint>

#include "emulator/cta.h"

namespace emulation {

extern const WarpOperation kMmaF16;
extern const WarpOperation kMmaBf16;
extern const WarpOperation kLdmatrix;
extern const WarpOperation kLdmatrixTrans;

/// d = a * b + c of m16n8k16. Products are exact and are summed in double, with one rounding to float32 at the end.
void mma(const WarpOperation& type, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
         const float (&c)[4], std::source_location where);
void ldmatrix(const WarpOperation& kind, std::uint32_t (&r)[4], std::uint32_t shared_address,
              std::source_location where);
std::uint32_t movmatrix(std::uint32_t x, std::source_location where);

}  // namespace emulation
