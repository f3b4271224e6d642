#include "cpu/parallel.h"

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <thread>

#include "common/check.h"
#include "common/float_env.h"

namespace pagedkv::cpu {

int resolve_threads(int requested) {
  common::check_range("Exec", "threads", requested, 0, 4096);
  if (requested > 0) return requested;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

namespace detail {

void run_workers(int workers, void (*run)(void* context, int worker), void* context) {
  const auto one = [=](int worker) {
    const common::FloatEnv env;
    run(context, worker);
  };
  if (workers == 1) {
    one(0);
    return;
  }
  // Isolated: a thread that waits here must not pick up unrelated tasks of the caller's.
  tbb::this_task_arena::isolate([&] { tbb::parallel_for(0, workers, one, tbb::simple_partitioner()); });
}

}  // namespace detail
}  // namespace pagedkv::cpu
