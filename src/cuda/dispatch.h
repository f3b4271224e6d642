#pragma once
// Finding a compiled kernel by its key. The tables are generated from cmake/KernelMatrix.cmake, which is the one list
// of kernels; each operation `op` has a namespace pagedkv::cuda::impl::op with, in <op>/<op>.h,
//
//   using Launcher = void (*)(const Params&, ...);
//   template <class Kernel> struct Launch { static void run(const Params&, ...); };
//   std::span<const KernelEntry<Launcher>> kernels();
//
// Launch::run is defined in <op>/<op>.cuh, which the generated files instantiate; kernels() is generated too.
// Kernel is a KernelId.

#include <span>
#include <string>

#include "pagedkv/core/half.h"
#include "pagedkv/error.h"
#include "pagedkv/types.h"

namespace pagedkv::cuda {

/// What one kernel was compiled for.
struct KernelKey {
  int arch = 80;  ///< least compute capability that it runs on
  DType dtype = DType::f16;
  bool any_format = false;  ///< the kernel takes the format at run time, `format` means nothing
  KvFormat format;
  int head_dim = 0;
  int variant = 0;  ///< meaning is the operation's

  friend bool operator==(const KernelKey&, const KernelKey&) = default;
};

std::string to_string(const KernelKey& key);

/// The same at compile time: the template argument of a kernel's launcher.
template <int Arch, class T_, bool AnyFormat, KvType K, KvType V, int HeadDim, int Variant>
struct KernelId {
  using T = T_;
  static constexpr int kArch = Arch;
  static constexpr KvType kK = K;  ///< means nothing with kAnyFormat
  static constexpr KvType kV = V;
  static constexpr bool kAnyFormat = AnyFormat;
  static constexpr int kHeadDim = HeadDim;
  static constexpr int kVariant = Variant;
  static constexpr KernelKey key() { return {Arch, dtype_of<T>, AnyFormat, {K, V}, HeadDim, Variant}; }
};

template <class Launcher>
struct KernelEntry {
  KernelKey key;
  Launcher launch;
};

/// Whether a kernel compiled for `have` serves `want`, whose `arch` is the device's.
constexpr bool serves(const KernelKey& have, const KernelKey& want) {
  return have.arch <= want.arch && have.dtype == want.dtype && (have.any_format || have.format == want.format) &&
         have.head_dim == want.head_dim && have.variant == want.variant;
}

/// Throws Error (unsupported) that lists `have`, the keys that exist.
[[noreturn]] void reject_key(const char* op, const KernelKey& want, const std::string& have);

/// The launcher for `want` with the highest arch that the device has.
/// @throws Error (unsupported) if there is none.
template <class Launcher>
Launcher find_kernel(const char* op, std::span<const KernelEntry<Launcher>> table, const KernelKey& want) {
  const KernelEntry<Launcher>* best = nullptr;
  for (const auto& e : table) {
    if (serves(e.key, want) && (best == nullptr || e.key.arch > best->key.arch)) best = &e;
  }
  if (best != nullptr) return best->launch;
  std::string have;
  for (const auto& e : table) have += (have.empty() ? "" : ", ") + to_string(e.key);
  reject_key(op, want, have);
}

}  // namespace pagedkv::cuda
