#include "common/args_check.h"
#include "common/lengths_check.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"
#include "cpu/token_work.h"
#include "pagedkv/cpu.h"

namespace pagedkv::cpu {

void apply_rope(const ApplyRopeArgs& a, Exec exec) {
  const int threads = resolve_threads(exec.threads);
  common::check_args(a, common::Backend::cpu);
  common::check_lengths(a);
  const WriteKernels& kernels = write_kernels(current_target());
  const WriteRowsFn rotate_rows = kernels.rows(a.dtype, KvType::same);
  const std::int64_t element = dtype_bytes(a.dtype);

  // New tokens [first, last) of sequence b.
  const auto rotate = [&](std::int32_t b, std::int32_t first, std::int32_t last, std::int32_t first_head,
                          std::int32_t heads) {
    const auto offset = [&](const TokenStrides& s, std::int32_t token) {
      return (s.batch * b + s.start * a.cu_q[b] + s.token * token + s.head * first_head) * element;
    };
    const std::int32_t history = (a.cu_k[b + 1] - a.cu_k[b]) - (a.cu_q[b + 1] - a.cu_q[b]);
    TokenRotation rotation(a.rope, kernels.rotation);
    rotation.start_sequence(b);
    for (std::int32_t token = first; token < last; ++token) {
      WriteRows rows;
      rows.x = static_cast<const char*>(a.x) + offset(a.x_strides, token);
      rows.x_stride = a.x_strides.head * element;
      if (a.bias != nullptr) {
        rows.bias = static_cast<const char*>(a.bias) + std::int64_t{first_head} * a.head_dim * element;
      }
      rows.rotation = rotation.at(token, history + token);
      rows.pairs = a.rope.pairs;
      rows.rope_dim = a.rope.dim;
      rows.rows = heads;
      rows.dim = a.head_dim;
      rows.data = static_cast<char*>(a.y) + offset(a.y_strides, token);
      rows.data_stride = a.y_strides.head * element;
      rotate_rows(rows);
    }
  };
  const TokenWork work(a.cu_q, a.batch, a.heads, 2 * a.head_dim * element);
  parallel_for(work.items(), threads, [&](std::int64_t item, int) { work.for_each_part(item, rotate); });
}

}  // namespace pagedkv::cpu
