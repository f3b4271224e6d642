#pragma once
// Stored bytes as matrix fragments, by bit operations alone: a code where it lies in its 16 bits, masked, is a
// subnormal f16, code 2^-24, or 16 times that, and products take subnormal operands as they are (docs/decode.md).
//
// One ldmatrix of a 16-byte chunk gives each lane one word of it: for keys word lane % 4 of row lane / 4, for values
// (transposed) the 16-bit element lane / 4 of rows 2 (lane % 4) and + 1.

#include <cstdint>

#include "pagedkv/core/hd.h"
#include "pagedkv/types.h"

namespace pagedkv::cuda::impl::decode {

template <KvType F>
struct Convert;

/// One chunk: 8 values, one word per lane: one pair.
template <>
struct Convert<KvType::same> {
  static constexpr int kPairs = 1;
  __device__ static void pairs(std::uint32_t w, std::uint32_t (&f)[1]) { f[0] = w; }
  /// What 1 in pair i stands for.
  PAGEDKV_HD_CONSTEXPR static float step(int) { return 1.0F; }
  static constexpr float kStep = 1.0F;  ///< the largest
  /// Which values of the lane's word pair i holds, for keys: key_first(i) + {0, kKeyStep}.
  PAGEDKV_HD_CONSTEXPR static int key_first(int) { return 0; }
  static constexpr int kKeyStep = 1;
  static constexpr int kWordElements = 2;
};

template <>
struct Convert<KvType::int8> {
  static constexpr int kPairs = 2;
  __device__ static void pairs(std::uint32_t w, std::uint32_t (&f)[2]) {
    f[0] = w & 0x00ff00ffu;
    f[1] = __byte_perm(w, 0u, 0x4341);
  }
  PAGEDKV_HD_CONSTEXPR static float step(int) { return kStep; }
  static constexpr float kStep = 0x1p-24F;
  PAGEDKV_HD_CONSTEXPR static int key_first(int i) { return i; }
  static constexpr int kKeyStep = 2;
  static constexpr int kWordElements = 4;
};

template <>
struct Convert<KvType::int4> {
  static constexpr int kPairs = 4;
  __device__ static void pairs(std::uint32_t w, std::uint32_t (&f)[4]) {
    const std::uint32_t h = w >> 8;
    f[0] = w & 0x000f000fu;
    f[1] = w & 0x00f000f0u;
    f[2] = h & 0x000f000fu;
    f[3] = h & 0x00f000f0u;
  }
  PAGEDKV_HD_CONSTEXPR static float step(int i) { return i % 2 == 0 ? kStep / 16.0F : kStep; }
  static constexpr float kStep = 0x1p-20F;
  PAGEDKV_HD_CONSTEXPR static int key_first(int i) { return 2 * i; }
  static constexpr int kKeyStep = 1;
  static constexpr int kWordElements = 8;
};

}  // namespace pagedkv::cuda::impl::decode
