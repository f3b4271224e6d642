#include "cpu/parallel.h"

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <thread>

#include "common/check.h"
#include "common/float_env.h"

#if defined(PAGEDKV_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace pagedkv::cpu {

int resolve_threads(int requested) {
  common::check_range("Exec", "threads", requested, 0, 4096);
  if (requested > 0) return requested;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

namespace detail {
namespace {

// The thread library orders what happens before run_workers(), in the workers and after it, but is not instrumented:
// these tell ThreadSanitizer.
#if defined(PAGEDKV_THREAD_SANITIZER)
void acquire(void* context) {
  __tsan_acquire(context);
}
void release(void* context) {
  __tsan_release(context);
}
#else
void acquire(void*) {}
void release(void*) {}
#endif

}  // namespace

void run_workers(int workers, void (*run)(void* context, int worker), void* context) {
  const auto one = [=](int worker) {
    struct Order {
      void* context;
      explicit Order(void* c) : context(c) { acquire(context); }
      ~Order() { release(context); }
    } order(context);
    const common::FloatEnv env;
    run(context, worker);
  };
  if (workers == 1) {
    one(0);
    return;
  }
  release(context);
  try {
    // Isolated: a thread that waits here must not pick up unrelated tasks of the caller's.
    tbb::this_task_arena::isolate([&] { tbb::parallel_for(0, workers, one, tbb::simple_partitioner()); });
  } catch (...) {
    acquire(context);
    throw;
  }
  acquire(context);
}

}  // namespace detail
}  // namespace pagedkv::cpu
