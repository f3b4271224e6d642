#include "cuda/flatten_kv/flatten_kv.h"

#include "common/args_check.h"
#include "cuda/device.h"
#include "cuda/validation.h"

namespace pagedkv::cuda {

void flatten_kv(const FlattenKvArgs& args, Validation validation, Stream stream) {
  common::check_args(args, common::Backend::cuda);
  if (validation == Validation::full) validate_contents(args, stream);
  if (args.batch == 0 || args.max_total_k == 0) return;
  const KernelKey key{current_device().arch, args.layout.dtype, true, {}, args.layout.head_dim, 0};
  find_kernel("flatten_kv", impl::flatten_kv::kernels(), key)(args, stream);
}

}  // namespace pagedkv::cuda
