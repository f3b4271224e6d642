#include <fmt/format.h>

#include <algorithm>

#include "common/args_check.h"
#include "common/check.h"
#include "common/lengths_check.h"
#include "cpu/attention/kernels.h"
#include "cpu/attention/workspace.h"
#include "cpu/parallel.h"
#include "pagedkv/cpu.h"

namespace pagedkv::cpu {
namespace {

using namespace attention;

constexpr std::uintptr_t kWorkspaceAlignment = 256;
constexpr std::int32_t kMaxDecodeTokens = 16;

void check(const AttentionArgs& args) {
  common::check_args(args, common::Backend::cpu);
  common::check_lengths(args);
}

void check_decode(const DecodeArgs& args) {
  check(args);
  if (!args.causal) common::reject("AttentionArgs", "causal", "false", "true for decode; prefill takes both");
  for (std::int32_t b = 0; b < args.batch; ++b) {
    const std::int32_t q_len = args.cu_q[b + 1] - args.cu_q[b];
    if (q_len > kMaxDecodeTokens) {
      common::reject_element(
          "AttentionArgs", "cu_q", b + 1, args.cu_q[b + 1],
          fmt::format("at most cu_q[{}] + {} for decode; prefill takes any q_len", b, kMaxDecodeTokens));
    }
  }
}

std::size_t workspace_bytes(const AttentionArgs& args, Exec exec) {
  const int threads = resolve_threads(exec.threads);
  if (args.batch == 0) return 0;
  const Problem problem(args);
  return WorkspaceMap(problem, make_plan(problem, threads), nullptr).bytes;
}

void run(const AttentionArgs& args, Workspace workspace, Exec exec) {
  const int threads = resolve_threads(exec.threads);
  if (args.batch == 0) return;
  const Problem problem(args);
  const Plan plan = make_plan(problem, threads);
  const std::size_t needed = WorkspaceMap(problem, plan, nullptr).bytes;
  if (needed == 0) return;
  common::check_pointer("Workspace", "data", workspace.data, kWorkspaceAlignment);
  if (workspace.bytes < needed) {
    common::reject("Workspace", "bytes", workspace.bytes, fmt::format("at least {}", needed));
  }
  const WorkspaceMap map(problem, plan, static_cast<char*>(workspace.data));
  const Kernels kernels = current_kernels();
  list_items(problem, plan, map.items, map.folds);
  const auto scratch_of = [&](int worker) {
    Scratch scratch;
    map_scratch(problem, plan, map.scratch + map.scratch_bytes * static_cast<std::size_t>(worker), scratch);
    return scratch;
  };
  parallel_for(plan.items, plan.workers, [&](std::int64_t i, int worker) {
    kernels.run_item(problem, map.items[i], scratch_of(worker), map.partials);
  });
  parallel_for(plan.folds, plan.workers, [&](std::int64_t i, int worker) {
    kernels.run_fold(problem, map.folds[i], scratch_of(worker), map.partials);
  });
}

}  // namespace

std::size_t decode_workspace_bytes(const DecodeArgs& args, Exec exec) {
  check_decode(args);
  return workspace_bytes(args, exec);
}

std::size_t prefill_workspace_bytes(const PrefillArgs& args, Exec exec) {
  check(args);
  return workspace_bytes(args, exec);
}

void decode(const DecodeArgs& args, Workspace workspace, Exec exec) {
  check_decode(args);
  run(args, workspace, exec);
}

void prefill(const PrefillArgs& args, Workspace workspace, Exec exec) {
  check(args);
  run(args, workspace, exec);
}

}  // namespace pagedkv::cpu
