#pragma once
// Stands in for src/cuda/ptx/shared_memory.cuh.

#include <cstdint>

#include "emulator/cta.h"

#define PAGEDKV_DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(emulation::dynamic_shared())

namespace pagedkv::cuda::ptx {

template <class... Objects>
void in_shared(Objects&... objects) {
  (emulation::declare_shared(&objects, sizeof(objects), std::source_location::current()), ...);
}

inline std::uint32_t shared_address(const void* p, std::source_location where = std::source_location::current()) {
  return emulation::shared_address(p, where);
}

}  // namespace pagedkv::cuda::ptx
