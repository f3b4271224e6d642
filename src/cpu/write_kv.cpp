#include "common/args_check.h"
#include "common/block_lookup.h"
#include "common/lengths_check.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"
#include "cpu/token_work.h"
#include "pagedkv/cpu.h"

namespace pagedkv::cpu {
namespace {

class Writer {
 public:
  Writer(const WriteKvArgs& args, const WriteKernels& kernels, bool stream)
      : a_(args),
        kernels_(kernels),
        write_k_(kernels.rows(args.layout.dtype, args.layout.format.k)),
        write_v_(kernels.rows(args.layout.dtype, args.layout.format.v)),
        ownership_(args.cp),
        element_(dtype_bytes(args.layout.dtype)),
        stream_(stream) {}

  /// New tokens [first, last) of a sequence.
  void write(std::int32_t b, std::int32_t first, std::int32_t last, std::int32_t first_head, std::int32_t heads) const {
    const BlockLayout& layout = a_.layout;
    const std::int32_t history = (a_.cu_k[b + 1] - a_.cu_k[b]) - (a_.cu_q[b + 1] - a_.cu_q[b]);
    std::int64_t local = ownership_.count(history + first);
    const std::int64_t end = ownership_.count(history + last);
    if (a_.readonly_blocks != nullptr) {
      local = std::max(local, std::int64_t{a_.readonly_blocks[b]} * layout.block_len);
    }
    if (local >= end) return;

    WriteRows rows;
    rows.x_stride = a_.strides.head * element_;
    rows.rows = heads;
    rows.dim = layout.head_dim;
    rows.stream = stream_;
    const std::int64_t bias_offset = std::int64_t{first_head} * layout.head_dim * element_;
    TokenRotation rotation(a_.rope, kernels_.rotation);
    rotation.start_sequence(b);
    for (; local < end; ++local) {
      const auto l = static_cast<std::int32_t>(local);
      const std::int32_t position = ownership_.position(l);
      const std::int32_t token = position - history;
      const std::int64_t x = (a_.strides.batch * b + a_.strides.start * a_.cu_q[b] + a_.strides.token * token +
                              a_.strides.head * first_head) *
                             element_;
      char* block = common::block_address(a_.table, layout.block_bytes, b, l / layout.block_len);
      const std::int32_t row = l % layout.block_len;

      rows.x = static_cast<const char*>(a_.k) + x;
      rows.bias = a_.k_bias == nullptr ? nullptr : static_cast<const char*>(a_.k_bias) + bias_offset;
      rows.rotation = rotation.at(token, position);
      rows.pairs = a_.rope.pairs;
      rows.rope_dim = a_.rope.dim;
      rows.data = block + layout.k_data(a_.layer, first_head, row);
      rows.data_stride = layout.head_data_bytes;
      rows.param = block + layout.k_param(a_.layer, first_head, row);
      rows.param_stride = layout.head_param_bytes;
      write_k_(rows);
      if (layout.shared_kv) continue;

      rows.x = static_cast<const char*>(a_.v) + x;
      rows.bias = a_.v_bias == nullptr ? nullptr : static_cast<const char*>(a_.v_bias) + bias_offset;
      rows.rotation = nullptr;
      rows.data = block + layout.v_data(a_.layer, first_head, row);
      rows.param = block + layout.v_param(a_.layer, first_head, row);
      write_v_(rows);
    }
  }

 private:
  const WriteKvArgs& a_;
  const WriteKernels& kernels_;
  WriteRowsFn write_k_;
  WriteRowsFn write_v_;
  core::Ownership ownership_;
  std::int64_t element_;
  bool stream_;
};

}  // namespace

void write_kv(const WriteKvArgs& args, Exec exec) {
  const int threads = resolve_threads(exec.threads);
  common::check_args(args, common::Backend::cpu);
  common::check_lengths(args);
  if (args.batch == 0) return;
  const BlockLayout& layout = args.layout;
  const std::int64_t tokens = args.cu_q[args.batch] - args.cu_q[0];
  const std::int64_t stored = tokens * layout.kv_heads * (layout.k_row_bytes + layout.v_row_bytes);
  const WriteKernels& kernels = write_kernels(current_target());
  const Writer writer(args, kernels, stored >= kStreamBytes);
  const std::int64_t head_bytes = std::int64_t{2} * layout.head_dim * dtype_bytes(layout.dtype);
  const TokenWork work(args.cu_q, args.batch, layout.kv_heads, head_bytes);
  parallel_for(work.items(), threads, [&](std::int64_t item, int) {
    work.for_each_part(item, [&](auto... part) { writer.write(part...); });
    kernels.finish();
  });
}

}  // namespace pagedkv::cpu
