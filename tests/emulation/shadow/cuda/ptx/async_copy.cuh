#pragma once
// Stands in for src/cuda/ptx/async_copy.cuh.

#include <cstdint>

#include "emulator/cta.h"

namespace pagedkv::cuda::ptx {

using Place = std::source_location;

inline std::uint64_t create_evict_first_policy() {
  return 0;
}
inline std::uint64_t evict_first_policy() {
  return 0;
}
inline void copy_async_16(std::uint32_t to, const void* from, std::uint64_t, Place where = Place::current()) {
  emulation::copy_async(to, from, 16, 16, where);
}
inline void copy_async_16(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint64_t,
                          Place where = Place::current()) {
  emulation::copy_async(to, from, bytes, 16, where);
}
inline void copy_async_16(std::uint32_t to, const void* from, Place where = Place::current()) {
  emulation::copy_async(to, from, 16, 16, where);
}
template <int Bytes>
void copy_async_small(std::uint32_t to, const void* from, Place where = Place::current()) {
  emulation::copy_async(to, from, Bytes, Bytes, where);
}
inline void commit_copies() {
  emulation::commit_copies();
}
template <int Left>
void wait_copies() {
  emulation::wait_copies(Left);
}

}  // namespace pagedkv::cuda::ptx
