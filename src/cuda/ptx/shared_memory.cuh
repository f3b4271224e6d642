#pragma once
// Shared memory of a CTA, so that kernels build as plain C++ too (tests/emulation).

#include <cstdint>

/// Declares `name`, an array of `type`: the memory whose size the launch gives. A macro, because a function that
/// returns it makes the compiler schedule some kernels differently.
#define PAGEDKV_DYNAMIC_SHARED(type, name) extern __shared__ type name[]

namespace pagedkv::cuda::ptx {

/// Follows the declarations of `__shared__` objects. Nothing on a device; the emulation fills them with garbage, as
/// they are when a CTA starts, and counts their bytes.
template <class... Objects>
__device__ __forceinline__ void in_shared(Objects&...) {}

/// As instructions of the `shared` state space take it.
__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace pagedkv::cuda::ptx
