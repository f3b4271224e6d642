#include "bench/machine_limits.h"

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void on_threads(int threads, const std::function<void(int)>& f) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(f, i);
  f(0);
  for (std::thread& t : others) t.join();
}

/// Keeps a result alive.
template <class T>
void keep(const T& x) {
  asm volatile("" : : "g"(&x) : "memory");
}

// Vectors of the compiler; wide ones are split where the machine has none.
using Words = std::uint64_t __attribute__((vector_size(64)));

#if defined(__x86_64__)
__attribute__((target("avx512f")))
#endif
void read_avx512(const char* p, std::size_t bytes) {
  Words sums[4] = {};
  for (std::size_t i = 0; i + sizeof(sums) <= bytes; i += sizeof(sums)) {
    for (int j = 0; j < 4; ++j) {
      Words w;
      std::memcpy(&w, p + i + static_cast<std::size_t>(j) * sizeof(w), sizeof(w));
      sums[j] ^= w;
    }
  }
  keep(sums);
}

void read_plain(const char* p, std::size_t bytes) {
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i + sizeof(sums) <= bytes; i += sizeof(sums)) {
    for (std::size_t j = 0; j < 8; ++j) {
      std::uint64_t w;
      std::memcpy(&w, p + i + j * sizeof(w), sizeof(w));
      sums[j] ^= w;
    }
  }
  keep(sums);
}

bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") != 0;
#else
  return false;
#endif
}

/// FLOP of one call of the loops below, per lane.
constexpr int kRounds = 10000;
constexpr int kChains = 12;  // covers the latency of two units

#if defined(__x86_64__)
__attribute__((target("avx512f"))) double multiply_add_avx512() {
  __m512 x[kChains];
  for (__m512& v : x) v = _mm512_set1_ps(1.0F);
  const __m512 a = _mm512_set1_ps(0.999F);
  const __m512 b = _mm512_set1_ps(0.001F);
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) x[j] = _mm512_fmadd_ps(x[j], a, b);
  }
  keep(x);
  return 2.0 * 16 * kRounds * kChains;
}

__attribute__((target("avx2,fma"))) double multiply_add_avx2() {
  __m256 x[kChains];
  for (__m256& v : x) v = _mm256_set1_ps(1.0F);
  const __m256 a = _mm256_set1_ps(0.999F);
  const __m256 b = _mm256_set1_ps(0.001F);
  for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) x[j] = _mm256_fmadd_ps(x[j], a, b);
  }
  keep(x);
  return 2.0 * 8 * kRounds * kChains;
}
#endif

double multiply_add_plain() {
  float x[kChains];
  for (float& v : x) v = 1.0F;
  for (int i = 0; i < kRounds; ++i) {
    for (int j = 0; j < kChains; ++j) x[j] = std::fma(x[j], 0.999F, 0.001F);
  }
  keep(x);
  return 2.0 * kRounds * kChains;
}

double multiply_add() {
#if defined(__x86_64__)
  if (has_avx512()) return multiply_add_avx512();
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) return multiply_add_avx2();
#endif
  return multiply_add_plain();
}

}  // namespace

void evict(std::span<const std::byte> memory) {
#if defined(__x86_64__)
  for (std::size_t i = 0; i < memory.size(); i += 64) _mm_clflush(memory.data() + i);
  _mm_mfence();
#else
  static_cast<void>(memory);
  static const std::vector<std::byte> other(std::size_t{512} << 20);
  read_plain(reinterpret_cast<const char*>(other.data()), other.size());
#endif
}

MemoryBandwidth::MemoryBandwidth(int threads)
    : threads_(threads), from_(std::size_t{256} << 20, std::byte{1}), to_(from_.size()) {}

double MemoryBandwidth::read() {
  evict(from_);
  const std::size_t part = from_.size() / static_cast<std::size_t>(threads_);
  const Clock::time_point start = Clock::now();
  on_threads(threads_, [&](int i) {
    const char* p = reinterpret_cast<const char*>(from_.data()) + part * static_cast<std::size_t>(i);
    has_avx512() ? read_avx512(p, part) : read_plain(p, part);
  });
  return static_cast<double>(part) * threads_ / seconds_since(start);
}

double MemoryBandwidth::copy() {
  evict(from_);
  evict(to_);
  const std::size_t part = from_.size() / static_cast<std::size_t>(threads_);
  const Clock::time_point start = Clock::now();
  on_threads(threads_, [&](int i) {
    const std::size_t begin = part * static_cast<std::size_t>(i);
    std::memcpy(to_.data() + begin, from_.data() + begin, part);
  });
  return 2.0 * static_cast<double>(part) * threads_ / seconds_since(start);
}

double fma_rate(int threads, double seconds) {
  std::vector<double> flop(static_cast<std::size_t>(threads));
  const Clock::time_point start = Clock::now();
  on_threads(threads, [&](int i) {
    while (seconds_since(start) < seconds) flop[static_cast<std::size_t>(i)] += multiply_add();
  });
  const double elapsed = seconds_since(start);
  double total = 0;
  for (const double f : flop) total += f;
  return total / elapsed;
}

}  // namespace bench
