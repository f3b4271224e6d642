#pragma once
// A thread of a CTA as a fiber: a stack of its own that the scheduler switches to and that switches back.

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <functional>

namespace emulation {

class Fiber {
 public:
  /// Runs `body` once for each time that it is resumed after it has returned. `body` must not throw.
  explicit Fiber(std::function<void()> body);

  /// Called by the scheduler: returns when the fiber parks or its body returns.
  void resume();
  /// Called on the fiber: returns at the next resume().
  void park();

 private:
  boost::context::fiber self_;
  boost::context::fiber scheduler_;
  // Where the stacks are, for AddressSanitizer.
  const void* bottom_ = nullptr;
  std::size_t bytes_ = 0;
  const void* scheduler_bottom_ = nullptr;
  std::size_t scheduler_bytes_ = 0;
};

}  // namespace emulation
