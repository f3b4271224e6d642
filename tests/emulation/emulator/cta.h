#pragma once
// CTAs, one after the other: their threads, where these wait for each other, and their shared memory. What kernels
// reach of it is declared here; shadow/ has it under CUDA's and ptx/'s names.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>

#include "emulator/vector_types.h"

namespace emulation {

/// A kernel did what a device would not survive: what, and where its threads were.
struct KernelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// In which order the warps of a CTA, and the lanes between two places where a warp meets, take their turns. Each warp
/// (lane) runs as far as it can, so that what lacks a barrier reads what was not yet written, or was overwritten.
struct Order {
  enum class Kind { forward, backward, random };
  Kind kind = Kind::forward;
  std::uint64_t seed = 0;
};

struct Launch {
  dim3 ctas;
  dim3 threads;
  std::size_t shared = 0;          ///< dynamic
  std::size_t most_shared = 0;     ///< dynamic and static
  const void* kernel = nullptr;    ///< its address, for reports
  std::function<void()> function;  ///< called by every thread
};

/// @throws KernelError
void run(const Launch& launch, Order order);

// ------------------------------------------------------------------------------------------ for threads of a kernel

/// An operation that all lanes of a mask take part in. `complete` gets the operand of each lane in the mask.
struct WarpOperation {
  const char* name;
  bool aligned;  ///< all 32 lanes, at the same place of the program
  void (*complete)(void* const (&operands)[32], unsigned mask);
};

/// Parks until the lanes of `mask` are there; the last one completes the operation.
void meet(const WarpOperation& operation, unsigned mask, void* operand, std::source_location where);

/// __syncthreads_count.
int barrier(bool predicate, std::source_location where);

/// Lets the other warps have a turn: for threads that look at something again and again until others change it.
void yield(std::source_location where);

/// Ends the kernel with an error at this place.
[[noreturn]] void fail(const std::string& what, std::source_location where);

int lane_id();

/// The CTA's dynamic shared memory.
char* dynamic_shared();
/// A static object, which is filled with garbage if this is the first call of the CTA for it.
void declare_shared(void* object, std::size_t bytes, std::source_location where);

/// 32-bit addresses of dynamic shared memory.
std::uint32_t shared_address(const void* p, std::source_location where);
char* shared_pointer(std::uint32_t address, std::size_t bytes, std::source_location where);

/// cp.async of 16 bytes, the first `bytes` of which are read and the others zero. The destination is garbage until the
/// thread has waited for it.
void copy_async(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t size,
                std::source_location where);
void commit_copies();
void wait_copies(int left);
/// All that the thread has issued.
void land_copies();

}  // namespace emulation

extern const uint3& threadIdx;
extern const uint3& blockIdx;
extern const dim3& blockDim;
extern const dim3& gridDim;
