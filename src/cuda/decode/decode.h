#pragma once
// The launchers of decode: what the kernels get and how they are found.

#include <span>

#include "cuda/dispatch.h"
#include "pagedkv/cuda.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::decode {

/// A launch of the kernels of one T, format and head_dim. Kernel::kVariant is how many tiles of 8 rows (a row is a
/// query of a head) a warp works on at a time.
template <class Kernel>
struct Launch {
  /// @param earlier_done not null: the launch before this one on the stream is write_kv's of the new tokens and was
  /// given this word (early_start.cuh)
  static void run(const DecodeArgs& args, const std::uint32_t* earlier_done, Workspace workspace, Stream stream);
};

using Launcher = void (*)(const DecodeArgs&, const std::uint32_t* earlier_done, Workspace, Stream);

std::span<const KernelEntry<Launcher>> kernels();

}  // namespace pagedkv::cuda::impl::decode
