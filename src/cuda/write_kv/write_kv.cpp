#include "cuda/write_kv/write_kv.h"

#include "common/args_check.h"
#include "cuda/device.h"
#include "cuda/validation.h"
#include "cuda/write_kv/policy.h"

namespace pagedkv::cuda {

bool impl::write_kv::is_for_few_tokens(const WriteKvArgs& args) {
  const BlockLayout& l = args.layout;
  return choose_variant(args.max_total_q, l.kv_heads, l.head_dim, current_device().multiprocessors) == kFewTokens;
}

impl::write_kv::Launcher impl::write_kv::launcher_for(const WriteKvArgs& args) {
  const BlockLayout& l = args.layout;
  const int variant = is_for_few_tokens(args) ? kFewTokens : kManyTokens;
  return find_kernel("write_kv", kernels(), {current_device().arch, l.dtype, true, {}, l.head_dim, variant});
}

void write_kv(const WriteKvArgs& args, Validation validation, Stream stream) {
  common::check_args(args, common::Backend::cuda);
  if (validation == Validation::full) validate_contents(args, stream);
  if (args.batch == 0 || args.max_total_q == 0) return;
  impl::write_kv::launcher_for(args)(args, {}, stream);
}

}  // namespace pagedkv::cuda
