#pragma once
// Stands in for src/cuda/ptx/mbarrier.cuh.

#include <cstdint>

#include "emulator/cta.h"

namespace pagedkv::cuda::ptx {
namespace detail {

/// The 8 bytes of a barrier.
struct Barrier {
  std::uint16_t count;
  std::uint16_t left;  ///< of the current phase
  std::uint32_t phase;
};

inline Barrier& barrier_at(std::uint32_t address, std::source_location where) {
  return *reinterpret_cast<Barrier*>(emulation::shared_pointer(address, sizeof(Barrier), where));
}

}  // namespace detail

using Place = std::source_location;

inline void init_barrier(std::uint32_t barrier, std::uint32_t count, Place where = Place::current()) {
  detail::barrier_at(barrier, where) = {static_cast<std::uint16_t>(count), static_cast<std::uint16_t>(count), 0};
}
inline void arrive_at(std::uint32_t barrier, Place where = Place::current()) {
  detail::Barrier& b = detail::barrier_at(barrier, where);
  if (--b.left > 0) return;
  b.left = b.count;
  ++b.phase;
}
/// Copies land at once here: who does not wait for the phase is not found out.
inline void arrive_after_copies(std::uint32_t barrier, Place where = Place::current()) {
  emulation::land_copies();
  arrive_at(barrier, where);
}
inline bool phase_has_ended(std::uint32_t barrier, std::uint32_t parity, Place where = Place::current()) {
  if (detail::barrier_at(barrier, where).phase % 2 != parity) return true;
  emulation::yield(where);
  return detail::barrier_at(barrier, where).phase % 2 != parity;
}

}  // namespace pagedkv::cuda::ptx
