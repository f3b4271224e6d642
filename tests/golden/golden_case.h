#pragma once
// The recorded cases in data/ (see data/README.md).

#include <cstdint>
#include <string>
#include <vector>

#include "pagedkv/cpu.h"
#include "pagedkv/ops.h"
#include "support/npy.h"

namespace golden {

/// Where the recordings are: the environment variable PAGEDKV_GOLDEN_DATA, or the source tree that this was built from.
std::string data_folder();

/// The backend that write_case() and flatten_case() run; a test may put another in its place.
struct CacheBackend {
  void (*write_kv)(const pagedkv::WriteKvArgs&) = [](const pagedkv::WriteKvArgs& a) { pagedkv::cpu::write_kv(a); };
  void (*flatten_kv)(const pagedkv::FlattenKvArgs&) = [](const pagedkv::FlattenKvArgs& a) {
    pagedkv::cpu::flatten_kv(a);
  };
  /// Empty, or why the backend cannot run here.
  std::string (*why_not_run)() = [] { return std::string(); };
};
inline CacheBackend cache_backend;

/// One cache case of the manifest.
struct CacheCase {
  std::string name;
  pagedkv::BlockLayout layout;
  std::int32_t layer = 0;
  std::vector<std::int32_t> q_len;
  std::vector<std::int32_t> history;
  std::vector<std::int32_t> cu_block;
  std::vector<std::int32_t> readonly_blocks;  ///< empty: none
  pagedkv::ContextParallel cp;
  pagedkv::RopeParams rope;
  bool has_flat = false;
  bool degenerate = false;  ///< inputs with constant, tiny, huge, infinite and NaN rows
  std::string inputs;       ///< stem of the input files
  bool has_bias = false;

  std::int32_t batch() const { return static_cast<std::int32_t>(q_len.size()); }
  std::vector<std::int32_t> k_len() const;
  support::NpyArray file(const std::string& suffix) const;   ///< <name>_r<rank>_<suffix>.npy
  support::NpyArray input(const std::string& suffix) const;  ///< <inputs>_<suffix>.npy
};

/// All of them, in the manifest's order.
std::vector<CacheCase> cache_cases();

/// Cumulative sums, starting with 0.
std::vector<std::int32_t> cumulative(const std::vector<std::int32_t>& lengths);

constexpr char kPoison = '\xCD';

/// A cache of the case's shape: its blocks in a slab, in shuffled order, every byte poison at first.
class Cache {
 public:
  explicit Cache(const CacheCase& c);

  pagedkv::BlockTable table() const;
  char* layer_of_block(std::int32_t logical) const;
  /// Layer `layer` of all logical blocks in order, as the recorded arrays have them.
  std::vector<char> layer_bytes() const;
  void set_layer_bytes(const std::vector<char>& bytes);
  /// True if no byte outside the case's layer has changed.
  bool other_layers_untouched() const;

 private:
  const CacheCase& case_;
  std::vector<char> memory_;
  char* slab_;
  std::vector<std::int32_t> index_;
};

/// Writes the history (no bias, no RoPE), then the new tokens, as the recording did.
void write_case(const CacheCase& c, const Cache& cache);

/// Flattens into [kv_head][2][sum k_len][head_dim], poisoned first.
std::vector<char> flatten_case(const CacheCase& c, const Cache& cache);

}  // namespace golden
