#pragma once
// The launcher of write_kv: what the kernel gets and how it is found.

#include <cstdint>
#include <span>

#include "cuda/dispatch.h"
#include "pagedkv/cuda.h"
#include "pagedkv/ops.h"

namespace pagedkv::cuda::impl::write_kv {

/// What decode() wants of the write of its new tokens besides; device memory.
struct ForDecode {
  const std::uint8_t* finished = nullptr;  ///< [batch] nonzero: nothing is written for the sequence; may be null
  std::uint32_t* earlier_done = nullptr;   ///< tells the next kernel when those before are complete (early_start.cuh)
};

/// A launch of the kernel of one T and head_dim.
template <class Kernel>
struct Launch {
  static void run(const WriteKvArgs& args, const ForDecode& decode, Stream stream);
};

using Launcher = void (*)(const WriteKvArgs&, const ForDecode&, Stream);

std::span<const KernelEntry<Launcher>> kernels();

/// Whether `args` gets the kernel for few tokens (few_tokens.cuh).
bool is_for_few_tokens(const WriteKvArgs& args);

/// @throws Error (unsupported) if there is no kernel
Launcher launcher_for(const WriteKvArgs& args);

}  // namespace pagedkv::cuda::impl::write_kv
