#pragma once
// Stored bytes as matrix fragments, by bit operations alone: an int4 code becomes the f16 1024 + code or 64 + code, an
// int8 code 1024 + code. The offsets are taken out again by the sums of q and of p (docs/decode.md).
//
// One ldmatrix of a 16-byte chunk gives each lane one word of it: for keys word lane % 4 of row lane / 4, for values
// (transposed) the 16-bit element lane / 4 of rows 2 (lane % 4) and + 1.

#include <cstdint>

#include "cuda/ptx/arithmetic.cuh"
#include "pagedkv/core/hd.h"
#include "pagedkv/types.h"

namespace pagedkv::cuda::impl::decode {

inline constexpr std::uint32_t kOnes = 0x3c003c00u;  // f16 1.0, twice

template <KvType F>
struct Convert;

/// One chunk: 8 values, one word per lane: one pair.
template <>
struct Convert<KvType::same> {
  static constexpr int kPairs = 1;
  __device__ static void pairs(std::uint32_t w, std::uint32_t (&f)[1]) { f[0] = w; }
  PAGEDKV_HD_CONSTEXPR static float offset(int) { return 0.0F; }
  /// Which values of the lane's word pair i holds, for keys: kFirst + {0, kStep} elements.
  PAGEDKV_HD_CONSTEXPR static int key_first(int) { return 0; }
  static constexpr int kKeyStep = 1;
  static constexpr int kWordElements = 2;
};

template <>
struct Convert<KvType::int8> {
  static constexpr int kPairs = 2;
  __device__ static void pairs(std::uint32_t w, std::uint32_t (&f)[2]) {
    f[0] = ptx::and_or(w, 0x00ff00ffu, 0x64006400u);
    f[1] = __byte_perm(w, 0x64646464u, 0x4341);
  }
  PAGEDKV_HD_CONSTEXPR static float offset(int) { return 1024.0F; }
  PAGEDKV_HD_CONSTEXPR static int key_first(int i) { return i; }
  static constexpr int kKeyStep = 2;
  static constexpr int kWordElements = 4;
};

template <>
struct Convert<KvType::int4> {
  static constexpr int kPairs = 4;
  __device__ static void pairs(std::uint32_t w, std::uint32_t (&f)[4]) {
    const std::uint32_t h = w >> 8;
    f[0] = ptx::and_or(w, 0x000f000fu, 0x64006400u);
    f[1] = ptx::and_or(w, 0x00f000f0u, 0x54005400u);
    f[2] = ptx::and_or(h, 0x000f000fu, 0x64006400u);
    f[3] = ptx::and_or(h, 0x00f000f0u, 0x54005400u);
  }
  PAGEDKV_HD_CONSTEXPR static float offset(int i) { return i % 2 == 0 ? 1024.0F : 64.0F; }
  PAGEDKV_HD_CONSTEXPR static int key_first(int i) { return 2 * i; }
  static constexpr int kKeyStep = 1;
  static constexpr int kWordElements = 8;
};

}  // namespace pagedkv::cuda::impl::decode
