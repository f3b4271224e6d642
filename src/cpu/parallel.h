#pragma once
// Work over threads. parallel.cpp is the one file that knows the thread library.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace pagedkv::cpu {

/// Threads that an operation may use: `requested`, or as many as the machine has if it is 0.
/// @throws Error (invalid_argument) for a negative number.
int resolve_threads(int requested);

namespace detail {

/// Calls run(context, worker) once for each worker in [0, workers), in parallel where threads are free, each in the
/// default floating-point environment. Returns when all have returned; an exception of a worker is thrown here.
void run_workers(int workers, void (*run)(void* context, int worker), void* context);

}  // namespace detail

/// Calls body(item, worker) for each item in [0, items), with at most `threads` (from resolve_threads) calls at a time.
/// `worker` is below min(items, threads) and no two calls at the same time have the same one, so it can index scratch
/// memory. Items are handed out in increasing order.
template <class Body>
void parallel_for(std::int64_t items, int threads, Body&& body) {
  if (items <= 0) return;
  struct Context {
    std::remove_reference_t<Body>* body;
    std::int64_t items;
    std::atomic<std::int64_t> next{0};
  };
  Context context{&body, items};
  const auto run = [](void* p, int worker) {
    auto& c = *static_cast<Context*>(p);
    for (;;) {
      const std::int64_t item = c.next.fetch_add(1, std::memory_order_relaxed);
      if (item >= c.items) return;
      (*c.body)(item, worker);
    }
  };
  detail::run_workers(static_cast<int>(std::min<std::int64_t>(items, threads)), run, &context);
}

}  // namespace pagedkv::cpu
