#pragma once
// CUDA's qualifiers and the functions that device code has without a header.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>  // before __noinline__ below, which its attributes are spelled with
#include <source_location>
#include <type_traits>

#include "emulator/cta.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
/// CTAs run one after the other, so one object is enough; emulation::declare_shared() makes it a new one for each.
#define __shared__ static

namespace emulation {

struct Shuffle {
  std::uint64_t value;
  int source;
};

inline void complete_shuffle(void* const (&operands)[32], unsigned mask) {
  std::uint64_t given[32];
  for (int l = 0; l < 32; ++l) {
    if (operands[l] != nullptr) given[l] = static_cast<const Shuffle*>(operands[l])->value;
  }
  for (int l = 0; l < 32; ++l) {
    if (operands[l] == nullptr) continue;
    auto& to = *static_cast<Shuffle*>(operands[l]);
    if ((mask >> to.source & 1u) != 0) to.value = given[to.source];
  }
}

template <class T>
T shuffle(const WarpOperation& operation, unsigned mask, T value, int source, std::source_location where) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  if ((mask >> source & 1u) == 0) fail(std::string(operation.name) + " reads a lane that its mask leaves out", where);
  Shuffle operand{0, source};
  std::memcpy(&operand.value, &value, sizeof(T));
  meet(operation, mask, &operand, where);
  std::memcpy(&value, &operand.value, sizeof(T));
  return value;
}

struct Vote {
  bool predicate;
  unsigned ballot;
};

inline void complete_vote(void* const (&operands)[32], unsigned) {
  unsigned ballot = 0;
  for (int l = 0; l < 32; ++l) {
    if (operands[l] != nullptr && static_cast<const Vote*>(operands[l])->predicate) ballot |= 1u << l;
  }
  for (void* operand : operands) {
    if (operand != nullptr) static_cast<Vote*>(operand)->ballot = ballot;
  }
}

inline unsigned vote(const WarpOperation& operation, unsigned mask, bool predicate, std::source_location where) {
  Vote operand{predicate, 0};
  meet(operation, mask, &operand, where);
  return operand.ballot;
}

inline constexpr WarpOperation kShuffle{"__shfl_sync", false, complete_shuffle};
inline constexpr WarpOperation kShuffleUp{"__shfl_up_sync", false, complete_shuffle};
inline constexpr WarpOperation kShuffleXor{"__shfl_xor_sync", false, complete_shuffle};
inline constexpr WarpOperation kBallot{"__ballot_sync", false, complete_vote};
inline constexpr WarpOperation kAny{"__any_sync", false, complete_vote};
inline constexpr WarpOperation kAll{"__all_sync", false, complete_vote};
inline constexpr WarpOperation kSyncWarp{"__syncwarp", false, nullptr};

using Place = std::source_location;

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, emulation::Place where = emulation::Place::current()) {
  return emulation::shuffle(emulation::kShuffle, mask, value, lane & 31, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, emulation::Place where = emulation::Place::current()) {
  const int own = emulation::lane_id();
  const int from = own - static_cast<int>(delta);
  return emulation::shuffle(emulation::kShuffleUp, mask, value, from < 0 ? own : from, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, emulation::Place where = emulation::Place::current()) {
  const int own = emulation::lane_id();
  const int from = own ^ bits;
  return emulation::shuffle(emulation::kShuffleXor, mask, value, from > 31 ? own : from, where);
}
inline unsigned __ballot_sync(unsigned mask, bool x, emulation::Place where = emulation::Place::current()) {
  return emulation::vote(emulation::kBallot, mask, x, where);
}
inline bool __any_sync(unsigned mask, bool x, emulation::Place where = emulation::Place::current()) {
  return emulation::vote(emulation::kAny, mask, x, where) != 0;
}
inline bool __all_sync(unsigned mask, bool x, emulation::Place where = emulation::Place::current()) {
  return emulation::vote(emulation::kAll, mask, x, where) == mask;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, emulation::Place where = emulation::Place::current()) {
  emulation::meet(emulation::kSyncWarp, mask, nullptr, where);
}
inline void __syncthreads(emulation::Place where = emulation::Place::current()) {
  emulation::barrier(false, where);
}
inline int __syncthreads_count(bool x, emulation::Place where = emulation::Place::current()) {
  return emulation::barrier(x, where);
}

/// Threads of the emulation do not run at the same time.
template <class T>
T atomicAdd(T* to, T x) {
  const T before = *to;
  *to = before + x;
  return before;
}

template <class T>
T __ldg(const T* p) {
  return *p;
}

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __popc(unsigned x) {
  return std::popcount(x);
}
/// One more than the place of the lowest set bit; 0 for 0.
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
constexpr int __vimax3_s32(int a, int b, int c) {
  return max(max(a, b), c);
}
constexpr unsigned __vimax3_u32(unsigned a, unsigned b, unsigned c) {
  return max(max(a, b), c);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
/// Byte i of the result is byte (selector >> 4 i) & 7 of {y, x}.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{y} << 32 | x;
  unsigned r = 0;
  for (unsigned i = 0; i < 4; ++i) {
    r |= static_cast<unsigned>(bytes >> (8 * (selector >> 4 * i & 7u)) & 0xffu) << 8 * i;
  }
  return r;
}
/// An approximation on a device, which gives 0 for large finite divisors.
inline float __fdividef(float a, float b) {
  return std::isfinite(b) && std::fabs(b) > 0x1p126F ? 0.0F * a : a / b;
}
