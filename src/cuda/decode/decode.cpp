#include "cuda/decode/decode.h"

#include "common/args_check.h"
#include "common/check.h"
#include "common/format.h"
#include "cuda/decode/workspace.h"
#include "cuda/device.h"
#include "cuda/validation.h"

namespace pagedkv::cuda {
namespace {

constexpr const char* kOwner = "DecodeArgs";
constexpr std::int32_t kMaxQueries = 16;
constexpr std::uintptr_t kWorkspaceAlignment = 256;

void check_decode(const DecodeArgs& a) {
  common::check_args(a, common::Backend::cuda, true);
  if (!a.causal) common::reject(kOwner, "causal", "false", "true");
  common::check_range(kOwner, "max_q_len", a.max_q_len, a.batch > 0 ? 1 : 0, kMaxQueries);
  const std::int32_t len = a.layout.block_len;
  if (len != 16 && len != 32 && len != 64 && len != 128) {
    throw Error(ErrorCode::unsupported, "DecodeArgs.layout.block_len", std::to_string(len), "16, 32, 64 or 128");
  }
  using impl::decode::kMlaDim;
  using impl::decode::kMlaValueDim;
  if (a.layout.shared_kv != impl::decode::shares_rows(a.layout.head_dim)) {
    throw Error(ErrorCode::unsupported, "DecodeArgs.layout.shared_kv", a.layout.shared_kv ? "true" : "false",
                common::formatted("true with head_dim {}, and only with it", kMlaDim));
  }
  if (a.layout.shared_kv && (a.v_dim != kMlaValueDim || a.v_offset % 64 != 0)) {
    throw Error(ErrorCode::unsupported, "DecodeArgs.v_dim, v_offset", common::formatted("{}, {}", a.v_dim, a.v_offset),
                common::formatted("{}, and 0 or 64", kMlaValueDim));
  }
}

}  // namespace

std::size_t decode_workspace_bytes(const DecodeArgs& args) {
  return impl::decode::workspace_layout(args).bytes;
}

void decode(const DecodeArgs& args, Workspace workspace, Validation validation, Stream stream) {
  check_decode(args);
  const std::size_t need = decode_workspace_bytes(args);
  if (need > 0) {
    common::check_pointer("Workspace", "data", workspace.data, kWorkspaceAlignment);
    common::check_at_least("Workspace", "bytes", static_cast<std::int64_t>(workspace.bytes),
                           static_cast<std::int64_t>(need));
  }
  if (validation == Validation::full) validate_contents(args, stream);
  if (args.batch == 0 || args.max_total_q == 0) return;

  const auto table = impl::decode::kernels();
  KernelKey key{current_device().arch, args.layout.dtype, false, args.layout.format, args.layout.head_dim, 8};
  // Where there is a kernel for it, more than 8 rows of a kv head are read together, and up to 4 take less work.
  const int rows = args.max_q_len * (args.q_heads / args.layout.kv_heads);
  KernelKey better = key;
  better.variant = rows > 8 ? 16 : rows > 4 ? 8 : 4;
  for (const auto& entry : table) {
    if (serves(entry.key, better)) key = better;
  }
  find_kernel("decode", table, key)(args, workspace, stream);
}

}  // namespace pagedkv::cuda
