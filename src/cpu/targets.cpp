#include "cpu/targets.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#define PAGEDKV_WITH_VNNI 1
#include "cpu/highway_targets.h"
#include "pagedkv/cpu.h"
#include "pagedkv/error.h"
// After the limits.
#include <hwy/targets.h>

namespace pagedkv::cpu {
namespace {

constexpr const char* kVariable = "PAGEDKV_CPU_TARGET";

constexpr std::array<std::string_view, 5> kNames = {"avx512vnni", "avx512", "avx2", "neon", "scalar"};

struct Available {
  std::vector<Target> targets;
  std::vector<std::string_view> names;

  Available() {
    const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
    const auto add = [&](bool present, Target t) {
      if (!present) return;
      targets.push_back(t);
      names.push_back(kNames[static_cast<std::size_t>(t)]);
    };
    add((usable & HWY_AVX3_DL) != 0, Target::avx512vnni);
    add((usable & HWY_AVX3) != 0, Target::avx512);
    add((usable & HWY_AVX2) != 0, Target::avx2);
    add((usable & HWY_NEON) != 0, Target::neon);
    add(true, Target::scalar);
  }
};

const Available& available() {
  static const Available a;
  return a;
}

/// The named target; `argument` is who asked for it.
Target find_target(std::string_view name, std::string argument) {
  const Available& a = available();
  for (std::size_t i = 0; i < a.names.size(); ++i) {
    if (a.names[i] == name) return a.targets[i];
  }
  std::string accepted;
  for (const std::string_view known : a.names) accepted.append(accepted.empty() ? "" : ", ").append(known);
  throw Error(ErrorCode::invalid_argument, std::move(argument), std::string(name), std::move(accepted));
}

/// The target in use, or -1 before the first use.
std::atomic<int>& chosen() {
  static std::atomic<int> value{-1};
  return value;
}

}  // namespace

Target current_target() {
  int t = chosen().load(std::memory_order_relaxed);
  if (t < 0) {
    const char* variable = std::getenv(kVariable);
    const bool named = variable != nullptr && *variable != '\0';
    const int first = static_cast<int>(named ? find_target(variable, kVariable) : available().targets.front());
    if (chosen().compare_exchange_strong(t, first, std::memory_order_relaxed))
      t = first;  // else set_target() was first
  }
  return static_cast<Target>(t);
}

std::span<const std::string_view> targets() {
  return available().names;
}

std::string_view target() {
  return kNames[static_cast<std::size_t>(current_target())];
}

void set_target(std::string_view name) {
  chosen().store(static_cast<int>(find_target(name, "set_target.name")), std::memory_order_relaxed);
}

}  // namespace pagedkv::cpu
