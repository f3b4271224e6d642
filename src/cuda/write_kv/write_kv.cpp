#include "cuda/write_kv/write_kv.h"

#include "common/args_check.h"
#include "cuda/device.h"
#include "cuda/validation.h"
#include "cuda/write_kv/policy.h"

namespace pagedkv::cuda {

void write_kv(const WriteKvArgs& args, Validation validation, Stream stream) {
  common::check_args(args, common::Backend::cuda);
  if (validation == Validation::full) validate_contents(args, stream);
  if (args.batch == 0 || args.max_total_q == 0) return;
  const BlockLayout& l = args.layout;
  const Device& device = current_device();
  const int variant = impl::write_kv::choose_variant(args.max_total_q, l.kv_heads, l.head_dim, device.multiprocessors);
  find_kernel("write_kv", impl::write_kv::kernels(), {device.arch, l.dtype, true, {}, l.head_dim, variant})(args,
                                                                                                            stream);
}

}  // namespace pagedkv::cuda
