#pragma once
// Division by a run-time constant with a multiplication (Granlund and Montgomery 1994, "Division by invariant
// integers").

#include <cstdint>

#include "pagedkv/core/hd.h"

namespace pagedkv::core {

/// Quotient and remainder of dividends in [0, 2^31) by a divisor in [1, 2^31).
struct FastDivmod {
  std::int32_t divisor = 1;
  std::uint32_t multiplier = 0;
  std::uint32_t shift = 0;

  FastDivmod() = default;

  PAGEDKV_HD_CONSTEXPR explicit FastDivmod(std::int32_t d) : divisor(d) {
    if (d > 1) {
      // ceil(log2 d) - 1 extra bits make ceil(2^(32+shift) / d) exact for 31-bit dividends.
      while ((std::int64_t{2} << shift) < d) ++shift;
      const std::uint64_t one = std::uint64_t{1} << (32 + shift);
      const auto ud = static_cast<std::uint64_t>(d);
      multiplier = static_cast<std::uint32_t>((one + ud - 1) / ud);
    }
  }

  PAGEDKV_HD std::int32_t div(std::int32_t n) const {
    if (divisor == 1) return n;
#if defined(__CUDA_ARCH__)
    return static_cast<std::int32_t>(__umulhi(static_cast<std::uint32_t>(n), multiplier) >> shift);
#else
    const std::uint64_t wide = static_cast<std::uint64_t>(static_cast<std::uint32_t>(n)) * multiplier;
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(wide >> 32) >> shift);
#endif
  }

  PAGEDKV_HD std::int32_t mod(std::int32_t n) const {
    return n - div(n) * divisor;
  }

  PAGEDKV_HD void operator()(std::int32_t& quotient, std::int32_t& remainder, std::int32_t n) const {
    quotient = div(n);
    remainder = n - quotient * divisor;
  }

  PAGEDKV_HD explicit operator int() const {
    return divisor;
  }
};

}  // namespace pagedkv::core
