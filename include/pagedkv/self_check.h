#pragma once
// Does this build, on this machine, produce the bytes that every other one does?

#include <cstdint>
#include <string>
#include <vector>

namespace pagedkv {

/// One hash, as it must be and as it is here.
struct CheckResult {
  std::string name;
  std::uint64_t expected = 0;
  std::uint64_t actual = 0;
  bool ok() const noexcept { return expected == actual; }
};

/// Which inputs a self-check takes.
enum class CheckInputs : std::uint8_t {
  sample,  ///< about 2^18 of every table: a fraction of a second
  full,    ///< all of them: minutes
};

/// Hashes of the arithmetic behind the cache bytes: conversions of f16 and bf16, row parameters, codes and values of
/// int8 and int4, sine and cosine of RoPE phases.
/// @param threads at most this many; 0: as many as the machine has
std::vector<CheckResult> check_arithmetic(CheckInputs inputs = CheckInputs::sample, int threads = 0);

/// Hashes of the byte offsets of a list of configurations.
std::vector<CheckResult> check_layouts();

/// Hashes of the blocks that cpu::write_kv() writes and of the rows that cpu::flatten_kv() reads back, on the SIMD
/// target in use: every T and format, both RoPE pair styles, ordinary and degenerate rows.
std::vector<CheckResult> check_cpu_cache_bytes();

}  // namespace pagedkv
