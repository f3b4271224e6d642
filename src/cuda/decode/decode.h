#pragma once
// The launchers of decode: what the kernels get and how they are found.

#include <span>

#include "cuda/dispatch.h"
#include "pagedkv/cuda.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::decode {

/// A launch of the kernels of one T, format and head_dim. Kernel::kVariant is how many rows (a row is a query of a
/// head) a warp works on at a time: 4, 8 or 16.
template <class Kernel>
struct Launch {
  static void run(const DecodeArgs& args, Workspace workspace, Stream stream);
};

using Launcher = void (*)(const DecodeArgs&, Workspace, Stream);

std::span<const KernelEntry<Launcher>> kernels();

}  // namespace pagedkv::cuda::impl::decode
