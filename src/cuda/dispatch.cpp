#include "cuda/dispatch.h"

#include "common/format.h"

namespace pagedkv::cuda {

std::string to_string(const KernelKey& key) {
  const std::string format =
      key.any_format ? "any" : common::formatted("{}:{}", name(key.format.k), name(key.format.v));
  std::string s = common::formatted("{{sm_{} {} {} head_dim {}", key.arch, name(key.dtype), format, key.head_dim);
  if (key.variant != 0) s += common::formatted(" variant {}", key.variant);
  return s + "}";
}

void reject_key(const char* op, const KernelKey& want, const std::string& have) {
  throw Error(ErrorCode::unsupported, std::string(op) + " kernel", to_string(want),
              have.empty() ? "this build has no kernel for it" : have);
}

}  // namespace pagedkv::cuda
