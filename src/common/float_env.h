#pragma once
// The floating-point environment that results are defined in, whatever the caller has set.

#include <cfenv>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pagedkv::common {

/// While it lives: rounding to nearest even, subnormals neither flushed nor read as zero, no traps. The destructor
/// restores what was there. A compiler may move arithmetic across it, so guard a call that is not inlined.
class FloatEnv {
 public:
#if defined(__x86_64__)
  FloatEnv() : saved_(_mm_getcsr()) {
    _mm_setcsr(0x1f80u);
  }  // the register's value at reset
  ~FloatEnv() {
    _mm_setcsr(saved_);
  }
#else
  FloatEnv() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatEnv() {
    std::fesetenv(&saved_);
  }
#endif
  FloatEnv(const FloatEnv&) = delete;
  FloatEnv& operator=(const FloatEnv&) = delete;

 private:
#if defined(__x86_64__)
  unsigned saved_;
#else
  std::fenv_t saved_;
#endif
};

}  // namespace pagedkv::common
