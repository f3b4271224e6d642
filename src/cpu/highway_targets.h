#pragma once
// Include before hwy/foreach_target.h. Limits Highway to targets whose MulAdd is one fused operation, because results
// must not depend on the target: SSE and the 128-bit emulation multiply and add in two steps. Scalable vectors (SVE,
// RVV) and the others are left out because no machine here could test them. Scalar code is our own; in Highway's scalar
// pass (HWY_SCALAR or HWY_EMU128, always compiled) a SIMD source file leaves its kernels out.
//
//   #define HWY_TARGET_INCLUDE "cpu/this_file.cpp"
//   #include "cpu/highway_targets.h"
//   #include <hwy/foreach_target.h>
//   #include <hwy/highway.h>
//   #if PAGEDKV_SIMD_PASS
//   HWY_BEFORE_NAMESPACE(); namespace pagedkv::cpu::HWY_NAMESPACE { ... const Kernels kKernels = {...}; }
//   HWY_AFTER_NAMESPACE(); #endif #if HWY_ONCE   // and a switch over Target (targets.h) with  #if HWY_TARGETS &
//   HWY_AVX2 ... &N_AVX2::kKernels #endif

#include <hwy/detect_targets.h>

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (~(HWY_SCALAR | HWY_EMU128 | HWY_AVX2 | HWY_AVX3 | HWY_NEON))

/// True while a real SIMD target is compiled.
#define PAGEDKV_SIMD_PASS (HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128)
