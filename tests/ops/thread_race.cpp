// A data race in the body of parallel_for: ThreadSanitizer has to find it, whatever is suppressed (tests/tsan.supp).

#include <chrono>
#include <cstdint>
#include <thread>

#include "cpu/parallel.h"

int main() {
  int count = 0;
  pagedkv::cpu::parallel_for(200, 2, [&](std::int64_t, int) {
    ++count;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // so that both threads get items
  });
  return count == 0 ? 1 : 0;
}
