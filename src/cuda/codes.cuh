#pragma once
// Stored codes back to T, 8 at a time: the bits of core::decode<T>.

#include <cstdint>

#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "pagedkv/types.h"

namespace pagedkv::cuda {

/// A chunk of 8 elements as stored: 16, 8 or 4 bytes.
template <KvType Type>
struct StoredChunk;

template <>
struct StoredChunk<KvType::same> {
  uint4 bits;
  static constexpr int kBytes = 16;
  static constexpr bool kHasParam = false;
  __device__ void load(const char* p) { bits = ptx::load_once_16(p); }
};
template <>
struct StoredChunk<KvType::int8> {
  uint2 bits;
  static constexpr int kBytes = 8;
  static constexpr bool kHasParam = true;
  __device__ void load(const char* p) { bits = ptx::load_once_8(p); }
};
template <>
struct StoredChunk<KvType::int4> {
  std::uint32_t bits;
  static constexpr int kBytes = 4;
  static constexpr bool kHasParam = true;
  __device__ void load(const char* p) { bits = ptx::load_once_4(p); }
};

/// The chunk as 8 values of T; `param` is the row's {scale, zero} as stored.
template <class T>
__device__ __forceinline__ uint4 decode_chunk(const StoredChunk<KvType::same>& chunk, std::uint32_t) {
  return chunk.bits;
}
template <class T>
__device__ __forceinline__ uint4 decode_chunk(const StoredChunk<KvType::int8>& chunk, std::uint32_t param) {
  const std::uint32_t scale = __byte_perm(param, 0, 0x1010);
  const std::uint32_t zero = __byte_perm(param, 0, 0x3232);
  const auto two = [&](std::uint32_t word, std::uint32_t selector) {
    return ptx::decode_pair<T>(__byte_perm(word, 0, selector), scale, zero);
  };
  return {two(chunk.bits.x, 0x4140), two(chunk.bits.x, 0x4342), two(chunk.bits.y, 0x4140), two(chunk.bits.y, 0x4342)};
}
template <class T>
__device__ __forceinline__ uint4 decode_chunk(const StoredChunk<KvType::int4>& chunk, std::uint32_t param) {
  const std::uint32_t scale = __byte_perm(param, 0, 0x1010);
  const std::uint32_t zero = __byte_perm(param, 0, 0x3232);
  // Nibbles e0 e2 e4 e6 | e1 e3 e5 e7: each shift by 4 brings the next pair to the low nibbles of the halves.
  const auto two = [&](int shift) { return ptx::decode_pair<T>((chunk.bits >> shift) & 0x000f000fu, scale, zero); };
  return {two(0), two(4), two(8), two(12)};
}

}  // namespace pagedkv::cuda
