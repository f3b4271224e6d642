#pragma once
// The launcher of write_kv: what the kernel gets and how it is found.

#include <cstdint>
#include <span>

#include "cuda/dispatch.h"
#include "pagedkv/cuda.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::write_kv {

/// A launch of the kernel of one T and head_dim.
template <class Kernel>
struct Launch {
  static void run(const WriteKvArgs& args, const std::uint8_t* finished, Stream stream);
};

using Launcher = void (*)(const WriteKvArgs&, const std::uint8_t* finished, Stream);

std::span<const KernelEntry<Launcher>> kernels();

/// The launcher for `args`. What it gets as `finished` is [batch] in device memory, nonzero: nothing is written for the
/// sequence; or null.
/// @throws Error (unsupported) if there is no kernel
Launcher launcher_for(const WriteKvArgs& args);

}  // namespace pagedkv::cuda::impl::write_kv
