#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "common/args_check.h"
#include "common/check.h"
#include "common/format.h"
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

void check(const AttentionArgs& args, bool decode) {
  common::check_args(args, common::Backend::cpu, decode);
  common::check_lengths(args);
}

void check_decode(const DecodeArgs& args) {
  check(args, true);
  if (!args.causal) common::reject("AttentionArgs", "causal", "false", "true for decode; prefill takes both");
  for (std::int32_t b = 0; b < args.batch; ++b) {
    const std::int32_t q_len = args.cu_q[b + 1] - args.cu_q[b];
    if (q_len > kMaxDecodeTokens) {
      common::reject_element(
          "AttentionArgs", "cu_q", b + 1, args.cu_q[b + 1],
          common::formatted("at most cu_q[{}] + {} for decode; prefill takes any q_len", b, kMaxDecodeTokens));
    }
  }
}

constexpr std::size_t aligned(std::int64_t bytes) {
  return (static_cast<std::size_t>(bytes) + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

/// Memory in front of the rest of the workspace, for what comes before attention.
struct Front {
  std::size_t query_bytes = 0;     ///< for queries that apply_rope() has worked on
  std::size_t readonly_bytes = 0;  ///< for the fused write's readonly_blocks where sequences are finished

  explicit Front(const AttentionArgs& args) {
    if (args.q_bias != nullptr || args.rotate_q) {
      query_bytes = aligned(std::int64_t{args.cu_q[args.batch]} * args.q_heads * args.layout.head_dim *
                            dtype_bytes(args.layout.dtype));
    }
    if (args.fuse_write.k != nullptr && args.finished != nullptr) {
      readonly_bytes = aligned(std::int64_t{args.batch} * static_cast<std::int64_t>(sizeof(std::int32_t)));
    }
  }
  std::size_t bytes() const { return query_bytes + readonly_bytes; }
};

/// Puts the new tokens into the cache and the prepared queries at `memory`, as far as the arguments ask for it, and
/// returns the arguments of what is left to do.
AttentionArgs prepare(const AttentionArgs& args, const Front& front, char* memory, Exec exec) {
  if (args.fuse_write.k != nullptr) {
    WriteKvArgs write = common::write_of(args);
    if (args.finished != nullptr) {
      // Of a finished sequence nothing is written: all of its blocks count as read-only.
      auto* readonly = reinterpret_cast<std::int32_t*>(memory + front.query_bytes);
      for (std::int32_t b = 0; b < args.batch; ++b) {
        const std::int32_t own = write.readonly_blocks != nullptr ? write.readonly_blocks[b] : 0;
        readonly[b] = args.finished[b] != 0 ? std::numeric_limits<std::int32_t>::max() : own;
      }
      write.readonly_blocks = readonly;
    }
    write_kv(write, exec);
  }
  if (front.query_bytes == 0) return args;
  ApplyRopeArgs rope;
  rope.dtype = args.layout.dtype;
  rope.heads = args.q_heads;
  rope.head_dim = args.layout.head_dim;
  rope.batch = args.batch;
  rope.cu_q = args.cu_q;
  rope.cu_k = args.cu_k;
  rope.x = args.q;
  rope.x_strides = args.q_strides;
  rope.y = memory;
  rope.y_strides = packed_strides(args.q_heads, args.layout.head_dim);
  rope.bias = args.q_bias;
  if (args.rotate_q) rope.rope = args.rope;
  apply_rope(rope, exec);
  AttentionArgs rest = args;
  rest.q = memory;
  rest.q_strides = rope.y_strides;
  return rest;
}

std::size_t workspace_bytes(const AttentionArgs& args, Exec exec) {
  const int threads = resolve_threads(exec.threads);
  if (args.batch == 0) return 0;
  const Problem problem(args);
  return Front(args).bytes() + WorkspaceMap(problem, make_plan(problem, threads), nullptr).bytes;
}

void run(const AttentionArgs& given, Workspace workspace, Exec exec) {
  const int threads = resolve_threads(exec.threads);
  if (given.batch == 0) return;
  const std::size_t needed = workspace_bytes(given, exec);
  if (needed == 0) return;
  common::check_pointer("Workspace", "data", workspace.data, kWorkspaceAlignment);
  if (workspace.bytes < needed) {
    common::reject("Workspace", "bytes", workspace.bytes, common::formatted("at least {}", needed));
  }
  char* memory = static_cast<char*>(workspace.data);
  const Front front(given);
  const AttentionArgs args = prepare(given, front, memory, exec);
  const Problem problem(args);
  const Plan plan = make_plan(problem, threads);
  const WorkspaceMap map(problem, plan, memory + front.bytes());
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
  check(args, false);
  return workspace_bytes(args, exec);
}

void decode(const DecodeArgs& args, Workspace workspace, Exec exec) {
  check_decode(args);
  run(args, workspace, exec);
}

void prefill(const PrefillArgs& args, Workspace workspace, Exec exec) {
  check(args, false);
  run(args, workspace, exec);
}

}  // namespace pagedkv::cpu
