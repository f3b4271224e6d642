#pragma once
// The launcher of write_kv: what the kernel gets and how it is found.

#include <span>

#include "cuda/dispatch.h"
#include "pagedkv/cuda.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::write_kv {

/// A launch of the kernel of one T and head_dim.
template <class Kernel>
struct Launch {
  static void run(const WriteKvArgs& args, Stream stream);
};

using Launcher = void (*)(const WriteKvArgs&, Stream);

std::span<const KernelEntry<Launcher>> kernels();

}  // namespace pagedkv::cuda::impl::write_kv
