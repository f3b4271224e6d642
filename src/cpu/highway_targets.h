#pragma once
// Include before hwy/foreach_target.h, with a blank line between, or clang-format sorts it behind. Limits Highway to
// targets whose MulAdd is one fused operation, because results must not depend on the target: SSE and the 128-bit
// emulation multiply and add in two steps. Scalable vectors (SVE, RVV) and the others are left out because no machine
// here could test them. Scalar code is our own; in Highway's scalar pass (HWY_SCALAR or HWY_EMU128, always compiled) a
// SIMD source file leaves its kernels out.
// rows_read_simd.cpp shows the pattern: foreach_target.h, kernels inside `#if PAGEDKV_SIMD_PASS`, and in `#if HWY_ONCE`
// a switch over Target (targets.h).
//
// A file that has kernels of its own for avx512vnni (Highway's HWY_AVX3_DL) defines PAGEDKV_WITH_VNNI before.

#if defined(PAGEDKV_WITH_VNNI)
#define HWY_WANT_AVX3_DL
#endif

#include <hwy/detect_targets.h>

#undef HWY_DISABLED_TARGETS
#if defined(PAGEDKV_WITH_VNNI)
#define HWY_DISABLED_TARGETS (~(HWY_SCALAR | HWY_EMU128 | HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL | HWY_NEON))
#else
#define HWY_DISABLED_TARGETS (~(HWY_SCALAR | HWY_EMU128 | HWY_AVX2 | HWY_AVX3 | HWY_NEON))
#endif

/// True while a real SIMD target is compiled.
#define PAGEDKV_SIMD_PASS (HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128)
