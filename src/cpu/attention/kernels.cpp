#include "cpu/attention/kernels.h"

#define HWY_TARGET_INCLUDE "cpu/attention/kernels.cpp"
#define PAGEDKV_WITH_VNNI 1
#include "cpu/highway_targets.h"
// After the limits.
#include <hwy/foreach_target.h>

#include "cpu/attention/run-inl.h"

#if HWY_ONCE

#include "cpu/targets.h"

namespace pagedkv::cpu::attention {

Kernels current_kernels() {
  switch (current_target()) {
#if HWY_TARGETS & HWY_AVX3_DL
    case Target::avx512vnni:
      return {N_AVX3_DL::run_item, N_AVX3_DL::run_fold};
#endif
#if HWY_TARGETS & HWY_AVX3
    case Target::avx512:
      return {N_AVX3::run_item, N_AVX3::run_fold};
#endif
#if HWY_TARGETS & HWY_AVX2
    case Target::avx2:
      return {N_AVX2::run_item, N_AVX2::run_fold};
#endif
#if HWY_TARGETS & HWY_NEON
    case Target::neon:
      return {N_NEON::run_item, N_NEON::run_fold};
#endif
    default:
#if HWY_TARGETS & HWY_EMU128
      return {N_EMU128::run_item, N_EMU128::run_fold};
#else
      return {N_SCALAR::run_item, N_SCALAR::run_fold};
#endif
  }
}

}  // namespace pagedkv::cpu::attention
#endif  // HWY_ONCE
