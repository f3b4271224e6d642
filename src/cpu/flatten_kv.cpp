#include "common/args_check.h"
#include "common/block_lookup.h"
#include "common/lengths_check.h"
#include "cpu/parallel.h"
#include "cpu/rows.h"
#include "cpu/token_work.h"
#include "pagedkv/cpu.h"

namespace pagedkv::cpu {
namespace {

class Flattener {
 public:
  Flattener(const FlattenKvArgs& args, const ReadKernels& read, const WriteKernels& write, bool stream)
      : a_(args),
        read_k_(read.rows(args.layout.dtype, args.layout.format.k)),
        read_v_(read.rows(args.layout.dtype, args.layout.format.v)),
        rotate_(write.rows(args.layout.dtype, KvType::same)),
        rotation_(write.rotation),
        ownership_(args.cp),
        element_(dtype_bytes(args.layout.dtype)),
        stream_(stream) {}

  /// Positions [first, last) of a sequence.
  void read(std::int32_t b, std::int32_t first, std::int32_t last, std::int32_t first_head, std::int32_t heads) const {
    const BlockLayout& layout = a_.layout;
    const std::int32_t begin = ownership_.count(first);
    const std::int32_t end = ownership_.count(last);
    for (std::int32_t local = begin; local < end;) {
      const std::int32_t row = local % layout.block_len;
      const std::int32_t rows = std::min(end - local, layout.block_len - row);
      const char* block = common::block_address(a_.table, layout.block_bytes, b, local / layout.block_len);
      for (std::int32_t h = first_head; h < first_head + heads; ++h) {
        ReadRows r;
        r.rows = rows;
        r.dim = layout.head_dim;
        r.stream = stream_;
        r.y_stride = a_.strides.token * element_;
        r.data = block + layout.k_data(a_.layer, h, row);
        r.data_stride = layout.k_row_bytes;
        r.param = block + layout.k_param(a_.layer, h, row);
        r.param_stride = layout.k_param_bytes;
        r.y = at(a_.k, b, local, h);
        read_k_(r);
        if (a_.v == nullptr) continue;
        r.data = block + layout.v_data(a_.layer, h, row);
        r.data_stride = layout.v_row_bytes;
        r.param = block + layout.v_param(a_.layer, h, row);
        r.param_stride = layout.v_param_bytes;
        r.y = at(a_.v, b, local, h);
        read_v_(r);
      }
      local += rows;
    }
    if (a_.rope.dim != 0) rotate(b, begin, end, first_head, heads);
  }

 private:
  char* at(void* base, std::int32_t b, std::int32_t local, std::int32_t head) const {
    const std::int64_t start = std::int64_t{a_.cu_k[b]} - a_.cu_k[0];
    const TokenStrides& s = a_.strides;
    return static_cast<char*>(base) + (s.batch * b + s.start * start + s.token * local + s.head * head) * element_;
  }

  /// RoPE on the keys that read() has put into place.
  void rotate(std::int32_t b, std::int32_t begin, std::int32_t end, std::int32_t first_head, std::int32_t heads) const {
    TokenRotation rotation(a_.rope, rotation_);
    rotation.start_sequence(b);
    for (std::int32_t local = begin; local < end; ++local) {
      const std::int32_t position = ownership_.position(local);
      WriteRows rows;
      rows.x = at(a_.k, b, local, first_head);
      rows.x_stride = a_.strides.head * element_;
      rows.rotation = rotation.at(position, position);
      rows.pairs = a_.rope.pairs;
      rows.rope_dim = a_.rope.dim;
      rows.rows = heads;
      rows.dim = a_.layout.head_dim;
      rows.data = at(a_.k, b, local, first_head);
      rows.data_stride = rows.x_stride;
      rotate_(rows);
    }
  }

  const FlattenKvArgs& a_;
  ReadRowsFn read_k_;
  ReadRowsFn read_v_;
  WriteRowsFn rotate_;
  RotationFn rotation_;
  core::Ownership ownership_;
  std::int64_t element_;
  bool stream_;
};

}  // namespace

void flatten_kv(const FlattenKvArgs& args, Exec exec) {
  const int threads = resolve_threads(exec.threads);
  common::check_args(args, common::Backend::cpu);
  common::check_lengths(args);
  if (args.batch == 0) return;
  const BlockLayout& layout = args.layout;
  const std::int64_t head_bytes = std::int64_t{2} * layout.head_dim * dtype_bytes(layout.dtype);
  const std::int64_t tokens = args.cu_k[args.batch] - args.cu_k[0];
  // Rotation reads the rows again, so they had better stay in the caches.
  const bool stream = tokens * layout.kv_heads * head_bytes >= kStreamBytes && args.rope.dim == 0;
  const ReadKernels& kernels = read_kernels(current_target());
  const Flattener flattener(args, kernels, write_kernels(current_target()), stream);
  const TokenWork work(args.cu_k, args.batch, layout.kv_heads, head_bytes);
  parallel_for(work.items(), threads, [&](std::int64_t item, int) {
    work.for_each_part(item, [&](auto... part) { flattener.read(part...); });
    kernels.finish();
  });
}

}  // namespace pagedkv::cpu
