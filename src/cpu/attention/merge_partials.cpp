#include <algorithm>
#include <cmath>
#include <limits>

#include "common/args_check.h"
#include "cpu/parallel.h"
#include "pagedkv/core/half.h"
#include "pagedkv/cpu.h"

namespace pagedkv::cpu {
namespace {

constexpr std::int64_t kRowsPerItem = 64;
constexpr std::size_t kMaxDim = 1024;  // as check_args() has it

template <class T>
void merge_row(const MergePartialsArgs& a, std::int64_t row) {
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  const auto part_lse = [&](std::int32_t part) { return static_cast<double>(a.lse_parts[part * a.rows + row]); };
  double most = -std::numeric_limits<double>::infinity();
  bool invalid = false;
  for (std::int32_t part = 0; part < a.parts; ++part) {
    most = std::max(most, part_lse(part));
    invalid = invalid || std::isnan(part_lse(part));
  }
  if (invalid) most = std::numeric_limits<double>::quiet_NaN();
  const bool nothing = std::isinf(most) && most < 0.0;
  double total = 0.0;
  if (!nothing) {
    for (std::int32_t part = 0; part < a.parts; ++part) total += std::exp(part_lse(part) - most);
  }

  double sums[kMaxDim] = {};
  for (std::int32_t part = 0; part < a.parts && !nothing; ++part) {
    const double lse = part_lse(part);
    if (std::isinf(lse) && lse < 0.0) continue;  // this part saw nothing
    const double weight = std::exp(lse - most) / total;
    const float* from = a.o_parts + (part * a.rows + row) * a.dim;
    for (std::int32_t i = 0; i < a.dim; ++i) sums[i] += weight * static_cast<double>(from[i]);
  }
  T* o = static_cast<T*>(a.o) + row * a.dim;
  for (std::int32_t i = 0; i < a.dim; ++i) o[i] = core::from_float<T>(static_cast<float>(sums[i]));
  if (a.lse != nullptr) {
    a.lse[row] = nothing ? kMinusInfinity : core::from_float<float>(static_cast<float>(most + std::log(total)));
  }
}

}  // namespace

void merge_partials(const MergePartialsArgs& args, Exec exec) {
  common::check_args(args, common::Backend::cpu);
  const int threads = resolve_threads(exec.threads);
  const std::int64_t items = (args.rows + kRowsPerItem - 1) / kRowsPerItem;
  parallel_for(items, threads, [&](std::int64_t item, int) {
    const std::int64_t end = std::min(args.rows, (item + 1) * kRowsPerItem);
    for (std::int64_t row = item * kRowsPerItem; row < end; ++row) {
      if (args.dtype == DType::f32) {
        merge_row<float>(args, row);
      } else if (args.dtype == DType::f16) {
        merge_row<half_t>(args, row);
      } else {
        merge_row<bfloat16_t>(args, row);
      }
    }
  });
}

}  // namespace pagedkv::cpu
