#pragma once
// Stands in for src/cuda/ptx/memory.cuh.

#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>

#include "emulator/cta.h"

namespace pagedkv::cuda::ptx {
namespace detail {

template <class V>
void check_aligned(const void* p, std::source_location where) {
  if (reinterpret_cast<std::uintptr_t>(p) % sizeof(V) != 0) {
    emulation::fail("an access to memory is not aligned to " + std::to_string(sizeof(V)) + " bytes", where);
  }
}
template <class V>
V load(const void* p, std::source_location where) {
  check_aligned<V>(p, where);
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
template <class V>
void store(void* p, V v, std::source_location where) {
  check_aligned<V>(p, where);
  std::memcpy(p, &v, sizeof(V));
}

}  // namespace detail

using Place = std::source_location;

inline uint4 load_once_16(const void* p, Place where = Place::current()) {
  return detail::load<uint4>(p, where);
}
inline uint2 load_once_8(const void* p, Place where = Place::current()) {
  return detail::load<uint2>(p, where);
}
inline std::uint32_t load_once_4(const void* p, Place where = Place::current()) {
  return detail::load<std::uint32_t>(p, where);
}
inline uint4 load_16(const void* p, Place where = Place::current()) {
  return detail::load<uint4>(p, where);
}
inline std::uint32_t load_4(const void* p, Place where = Place::current()) {
  return detail::load<std::uint32_t>(p, where);
}
inline void prefetch_l2(const void*) {}
inline void prefetch_l2(const void* p, std::uint32_t bytes, Place where = Place::current()) {
  detail::check_aligned<uint4>(p, where);
  if (bytes % 16 != 0) emulation::fail("a prefetch of a number of bytes that is no multiple of 16", where);
}
inline void store_16(void* p, uint4 v, Place where = Place::current()) {
  detail::store(p, v, where);
}
inline void store_8(void* p, uint2 v, Place where = Place::current()) {
  detail::store(p, v, where);
}
inline void store_4(void* p, std::uint32_t v, Place where = Place::current()) {
  detail::store(p, v, where);
}
inline void store_once_16(void* p, uint4 v, Place where = Place::current()) {
  detail::store(p, v, where);
}

}  // namespace pagedkv::cuda::ptx
