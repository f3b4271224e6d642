#include "emulator/fiber.h"

#include <boost/context/protected_fixedsize_stack.hpp>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulation {
namespace {

/// Kernels keep what would be registers on it; unoptimised and instrumented ones need the most.
constexpr std::size_t kStackBytes = 512 * 1024;

void start_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                  [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, bottom, bytes);
#endif
}

void finish_switch([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                   [[maybe_unused]] std::size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(saved, bottom, bytes);
#endif
}

}  // namespace

Fiber::Fiber(std::function<void()> body) {
  boost::context::protected_fixedsize_stack allocator(kStackBytes);
  const boost::context::stack_context stack = allocator.allocate();
  bytes_ = stack.size;
  bottom_ = static_cast<char*>(stack.sp) - stack.size;
  self_ = boost::context::fiber(std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack),
                                allocator, [this, run = std::move(body)](boost::context::fiber&& scheduler) {
                                  scheduler_ = std::move(scheduler);
                                  finish_switch(nullptr, &scheduler_bottom_, &scheduler_bytes_);
                                  for (;;) {
                                    run();
                                    park();
                                  }
                                  return std::move(scheduler_);
                                });
}

void Fiber::resume() {
  void* saved = nullptr;
  start_switch(&saved, bottom_, bytes_);
  self_ = std::move(self_).resume();
  finish_switch(saved, nullptr, nullptr);
}

void Fiber::park() {
  void* saved = nullptr;
  start_switch(&saved, scheduler_bottom_, scheduler_bytes_);
  scheduler_ = std::move(scheduler_).resume();
  finish_switch(saved, &scheduler_bottom_, &scheduler_bytes_);
}

}  // namespace emulation
