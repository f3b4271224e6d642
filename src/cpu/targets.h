#pragma once
// Which SIMD target the operations use.

#include <cstdint>

namespace pagedkv::cpu {

/// Sets of instructions that kernels are compiled for, best first. avx512vnni: AVX-512 as of Ice Lake and Zen 4, with
/// dot products of bytes; where a kernel has no use for them, it is avx512.
enum class Target : std::uint8_t { avx512vnni, avx512, avx2, neon, scalar };

/// The target in use: see cpu.h.
/// @throws Error (invalid_argument) if the environment variable names one that this machine cannot run.
Target current_target();

}  // namespace pagedkv::cpu
