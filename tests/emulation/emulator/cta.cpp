#include "emulator/cta.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "emulator/fiber.h"

namespace {

uint3 thread_index;
uint3 cta_index;
dim3 cta_size;
dim3 grid_size;

}  // namespace

const uint3& threadIdx = thread_index;
const uint3& blockIdx = cta_index;
const dim3& blockDim = cta_size;
const dim3& gridDim = grid_size;

namespace emulation {
namespace {

constexpr std::uint8_t kGarbage = 0xff;        // NaN in every float format
constexpr int kMostPolls = 1000000;            // of a CTA
constexpr std::uint32_t kSharedOrigin = 1024;  // addresses below belong to the system on sm_90

/// Thrown through the stacks of threads whose kernel has failed.
struct Abandoned {};

struct Copy {
  char* to;
  const void* from;
  std::uint32_t bytes;
  std::uint32_t size;  ///< of the place, zero from `bytes` on
};

struct Warp;

struct Thread {
  std::unique_ptr<Fiber> fiber;
  Warp* warp = nullptr;
  int lane = 0;
  uint3 index{};
  bool done = false;
  // Where it waits.
  const char* waits = nullptr;
  unsigned mask = 0;
  void* operand = nullptr;
  std::source_location where;
  // Copies that have not landed, oldest first: those of closed groups, then the others.
  std::vector<Copy> copies;
  std::vector<std::size_t> groups;  ///< numbers of copies
  std::size_t open = 0;             ///< copies of the group that is not closed
};

/// Lanes of a mask on their way to an operation.
struct Meeting {
  const WarpOperation* operation;
  unsigned mask;
  unsigned arrived;
  std::source_location where;
};

struct Warp {
  Thread* lane[32] = {};
  unsigned ready = 0;
  unsigned done = 0;        ///< or never there
  unsigned at_barrier = 0;  ///< of the CTA
  std::vector<Meeting> meetings;
};

std::string place(std::source_location where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", mask);
  return text;
}

std::string kernel_name(const void* kernel) {
  Dl_info info{};
  if (dladdr(kernel, &info) == 0 || info.dli_sname == nullptr || info.dli_saddr != kernel) return "(internal name)";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status),
                                                    std::free);
  return status == 0 ? text.get() : info.dli_sname;
}

/// The CTA that runs, and the threads that all CTAs take in turn.
class Cta {
 public:
  void run_grid(const Launch& launch, Order order);

  void meet(const WarpOperation& operation, unsigned mask, void* operand, std::source_location where);
  int barrier(bool predicate, std::source_location where);
  void yield(std::source_location where);
  [[noreturn]] void fail(const std::string& what, std::source_location where);
  void declare_shared(void* object, std::size_t bytes, std::source_location where);

  Thread& current() { return *current_; }
  char* shared() { return shared_.get(); }
  std::size_t shared_bytes() const { return launch_->shared; }

 private:
  void run();
  void body();
  void step(Warp& warp);
  Warp* next_warp();
  void park();
  void report(const std::string& what);
  [[noreturn]] void abandon(const std::string& what);
  std::string describe() const;

  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Warp> warps_;
  const Launch* launch_ = nullptr;
  Order order_;
  std::mt19937_64 random_;
  Thread* current_ = nullptr;
  std::size_t count_ = 0;  ///< threads of the CTA
  std::size_t done_ = 0;
  std::size_t turn_ = 0;  ///< the warp that runs
  int polls_ = 0;         ///< calls of yield()
  // The barrier that threads are at.
  std::size_t arrived_ = 0;
  int votes_ = 0;
  int result_ = 0;
  std::source_location barrier_place_;
  std::unique_ptr<char, void (*)(void*)> shared_{nullptr, std::free};
  std::vector<void*> declared_;
  std::size_t declared_bytes_ = 0;
  std::string failure_;
};

/// The thread's oldest copies.
void land(Thread& t, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const Copy& c = t.copies[i];
    std::memcpy(c.to, c.from, c.bytes);
    std::memset(c.to + c.bytes, 0, c.size - c.bytes);
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + static_cast<std::ptrdiff_t>(count));
}

/// Never destroyed: its fibers wait for the next kernel when the program ends.
Cta& cta() {
  static Cta* const c = new Cta;
  return *c;
}

void Cta::body() {
  Thread& self = *current_;
  try {
    if (failure_.empty()) launch_->function();
  } catch (const Abandoned&) {
  }
  self.done = true;
  self.waits = nullptr;
  ++done_;
  const unsigned bit = 1u << self.lane;
  self.warp->ready &= ~bit;
  self.warp->done |= bit;
  if (!failure_.empty()) return;
  if (arrived_ > 0) report("a thread has ended while others wait in __syncthreads");
  for (const Meeting& m : self.warp->meetings) {
    if ((m.mask & bit) != 0) report(std::string("a lane has ended that others wait for in ") + m.operation->name);
  }
}

void Cta::park() {
  Thread& self = *current_;
  self.warp->ready &= ~(1u << self.lane);
  self.fiber->park();
  if (!failure_.empty()) throw Abandoned{};
}

void Cta::report(const std::string& what) {
  if (failure_.empty()) failure_ = what + describe();
}

void Cta::abandon(const std::string& what) {
  report(what);
  throw Abandoned{};
}

void Cta::fail(const std::string& what, std::source_location where) {
  current_->waits = nullptr;
  abandon(what + " at " + place(where));
}

void Cta::meet(const WarpOperation& operation, unsigned mask, void* operand, std::source_location where) {
  Thread& self = *current_;
  Warp& warp = *self.warp;
  const unsigned bit = 1u << self.lane;
  self.waits = operation.name;
  self.mask = mask;
  self.operand = operand;
  self.where = where;
  if ((mask & bit) == 0) abandon("a lane takes part in an operation whose mask leaves it out");
  if (operation.aligned && mask != 0xffffffffu) abandon("an operation of the whole warp has a partial mask");
  if ((mask & warp.done) != 0) abandon("a lane waits for one that has ended");
  if ((mask & warp.at_barrier) != 0) abandon("a lane waits for one that is in __syncthreads");
  auto at = warp.meetings.end();
  for (auto m = warp.meetings.begin(); m != warp.meetings.end(); ++m) {
    if (m->mask == mask && m->operation->complete == operation.complete &&
        std::strcmp(m->operation->name, operation.name) == 0) {
      at = m;
    } else if ((m->mask & bit) != 0 && (m->arrived & mask) != 0) {  // each waits for the other
      abandon("lanes that should meet are at different operations");
    }
  }
  if (at == warp.meetings.end()) {
    at = warp.meetings.insert(at, {&operation, mask, 0, where});
  } else if (operation.aligned && at->where.line() != where.line()) {
    abandon("lanes are at different places in an operation of the whole warp");
  }
  at->arrived |= bit;
  if (at->arrived != mask) return park();
  warp.meetings.erase(at);
  void* operands[32] = {};
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    operands[l] = warp.lane[l]->operand;
    warp.lane[l]->waits = nullptr;
  }
  warp.ready |= mask;
  if (operation.complete != nullptr) operation.complete(operands, mask);
}

int Cta::barrier(bool predicate, std::source_location where) {
  Thread& self = *current_;
  Warp& warp = *self.warp;
  const unsigned bit = 1u << self.lane;
  self.waits = "__syncthreads";
  self.where = where;
  if (done_ > 0) abandon("a thread waits in __syncthreads while others have ended");
  for (const Meeting& m : warp.meetings) {
    if ((m.mask & bit) != 0) abandon("a lane that others wait for is in __syncthreads");
  }
  if (arrived_ == 0) {
    barrier_place_ = where;
    votes_ = 0;
  } else if (barrier_place_.line() != where.line()) {
    abandon("threads are in different __syncthreads");
  }
  votes_ += predicate ? 1 : 0;
  warp.at_barrier |= bit;
  if (++arrived_ < count_) {
    park();
    return result_;
  }
  arrived_ = 0;
  result_ = votes_;
  for (Warp& w : warps_) {
    w.ready |= w.at_barrier;
    w.at_barrier = 0;
  }
  for (std::size_t i = 0; i < count_; ++i) threads_[i]->waits = nullptr;
  return result_;
}

void Cta::yield(std::source_location where) {
  if (++polls_ > kMostPolls) fail("threads look for ever at what nobody changes", where);
  turn_ = (turn_ + 1) % warps_.size();
  current_->fiber->park();
  if (!failure_.empty()) throw Abandoned{};
}

void Cta::declare_shared(void* object, std::size_t bytes, std::source_location where) {
  if (std::find(declared_.begin(), declared_.end(), object) != declared_.end()) return;
  declared_.push_back(object);
  declared_bytes_ += bytes;
  if (declared_bytes_ + launch_->shared > launch_->most_shared) {
    fail("the CTA has " + std::to_string(declared_bytes_) + " bytes of static and " + std::to_string(launch_->shared) +
             " of dynamic shared memory, of " + std::to_string(launch_->most_shared) + " that were allowed",
         where);
  }
  std::memset(object, kGarbage, bytes);
}

/// One turn of each of a warp's lanes that can run.
void Cta::step(Warp& warp) {
  unsigned first = 0;
  unsigned flip = order_.kind == Order::Kind::backward ? 31 : 0;
  if (order_.kind == Order::Kind::random) {
    first = static_cast<unsigned>(random_() % 32);
    flip = static_cast<unsigned>(random_() % 32);
  }
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned l = (i + first) % 32 ^ flip;
    if ((warp.ready >> l & 1u) == 0) continue;
    current_ = warp.lane[l];
    thread_index = current_->index;
    current_->fiber->resume();
    if (!failure_.empty()) return;
  }
}

Warp* Cta::next_warp() {
  const std::size_t n = warps_.size();
  if (order_.kind != Order::Kind::random && warps_[turn_].ready != 0) return &warps_[turn_];
  const std::size_t start = order_.kind == Order::Kind::random ? random_() % n : 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t w = order_.kind == Order::Kind::backward ? n - 1 - i : (start + i) % n;
    if (warps_[w].ready == 0) continue;
    turn_ = w;
    return &warps_[w];
  }
  return nullptr;
}

void Cta::run() {
  done_ = arrived_ = turn_ = 0;
  polls_ = 0;
  declared_.clear();
  declared_bytes_ = 0;
  std::memset(shared_.get(), kGarbage, launch_->shared);
  for (Warp& w : warps_) {
    w.ready = w.at_barrier = 0;
    w.done = 0xffffffffu;
    w.meetings.clear();
  }
  for (std::size_t i = 0; i < count_; ++i) {
    Thread& t = *threads_[i];
    t.done = false;
    t.waits = nullptr;
    t.copies.clear();
    t.groups.clear();
    t.open = 0;
    t.warp->ready |= 1u << t.lane;
    t.warp->done &= ~(1u << t.lane);
  }
  while (done_ < count_ && failure_.empty()) {
    Warp* const warp = next_warp();
    if (warp == nullptr) {
      report("no thread can go on");
    } else {
      step(*warp);
    }
  }
  if (failure_.empty()) return;
  for (std::size_t i = 0; i < count_; ++i) {  // unwinds what they have on their stacks
    current_ = threads_[i].get();
    if (!current_->done) current_->fiber->resume();
  }
  throw KernelError(std::exchange(failure_, {}));
}

/// Where every thread is, lanes of a warp in the same place together.
std::string Cta::describe() const {
  std::string text = "\nkernel " + kernel_name(launch_->kernel) + ", CTA (" + std::to_string(cta_index.x) + ", " +
                     std::to_string(cta_index.y) + ", " + std::to_string(cta_index.z) + ")";
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    std::vector<std::pair<std::string, unsigned>> places;
    for (int l = 0; l < 32; ++l) {
      const Thread* t = warps_[w].lane[l];
      if (t == nullptr) continue;
      std::string where = t->done ? "ended" : t->waits == nullptr ? "running" : std::string("in ") + t->waits;
      if (!t->done && t->waits != nullptr) {
        if (std::strcmp(t->waits, "__syncthreads") != 0) where += " of mask " + hex(t->mask);
        where += " at " + place(t->where);
      }
      const auto same = std::find_if(places.begin(), places.end(), [&](const auto& p) { return p.first == where; });
      if (same == places.end()) {
        places.emplace_back(where, 1u << l);
      } else {
        same->second |= 1u << l;
      }
    }
    for (const auto& [where, lanes] : places) {
      text += "\n  warp " + std::to_string(w) + ", lanes " + hex(lanes) + ": " + where;
    }
  }
  return text;
}

void Cta::run_grid(const Launch& launch, Order order) {
  launch_ = &launch;
  order_ = order;
  random_.seed(order.seed);
  count_ = std::size_t{launch.threads.x} * launch.threads.y * launch.threads.z;
  while (threads_.size() < count_) {
    threads_.push_back(std::make_unique<Thread>());
    threads_.back()->fiber = std::make_unique<Fiber>([this] { body(); });
  }
  warps_.assign((count_ + 31) / 32, {});
  for (std::size_t i = 0; i < count_; ++i) {
    Thread& t = *threads_[i];
    const auto n = static_cast<unsigned>(i);
    t.warp = &warps_[i / 32];
    t.lane = static_cast<int>(i % 32);
    t.warp->lane[t.lane] = &t;
    t.index = {n % launch.threads.x, n / launch.threads.x % launch.threads.y,
               n / (launch.threads.x * launch.threads.y)};
  }
  cta_size = launch.threads;
  grid_size = launch.ctas;
  void* memory = nullptr;
  if (posix_memalign(&memory, 1024, std::max<std::size_t>(launch.shared, 1)) != 0) throw std::bad_alloc();
  shared_.reset(static_cast<char*>(memory));
  const std::uint64_t ctas = std::uint64_t{launch.ctas.x} * launch.ctas.y * launch.ctas.z;
  for (std::uint64_t i = 0; i < ctas; ++i) {
    const std::uint64_t c = order.kind == Order::Kind::backward ? ctas - 1 - i : i;
    cta_index = {static_cast<unsigned>(c % launch.ctas.x), static_cast<unsigned>(c / launch.ctas.x % launch.ctas.y),
                 static_cast<unsigned>(c / launch.ctas.x / launch.ctas.y)};
    run();
  }
}

}  // namespace

void run(const Launch& launch, Order order) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  cta().run_grid(launch, order);
}

void meet(const WarpOperation& operation, unsigned mask, void* operand, std::source_location where) {
  cta().meet(operation, mask, operand, where);
}

int barrier(bool predicate, std::source_location where) {
  return cta().barrier(predicate, where);
}

void yield(std::source_location where) {
  cta().yield(where);
}

void fail(const std::string& what, std::source_location where) {
  cta().fail(what, where);
}

int lane_id() {
  return cta().current().lane;
}

char* dynamic_shared() {
  return cta().shared();
}

void declare_shared(void* object, std::size_t bytes, std::source_location where) {
  cta().declare_shared(object, bytes, where);
}

std::uint32_t shared_address(const void* p, std::source_location where) {
  const auto offset = static_cast<const char*>(p) - cta().shared();
  if (offset < 0 || static_cast<std::size_t>(offset) > cta().shared_bytes()) {
    fail("an address is not in dynamic shared memory", where);
  }
  return static_cast<std::uint32_t>(offset) + kSharedOrigin;
}

char* shared_pointer(std::uint32_t address, std::size_t bytes, std::source_location where) {
  if (address % bytes != 0)
    fail("a shared memory address is not aligned to " + std::to_string(bytes) + " bytes", where);
  if (address < kSharedOrigin || address - kSharedOrigin + bytes > cta().shared_bytes()) {
    fail("address " + hex(address) + " is outside of the CTA's " + std::to_string(cta().shared_bytes()) +
             " bytes of dynamic shared memory",
         where);
  }
  return cta().shared() + (address - kSharedOrigin);
}

void copy_async(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t size,
                std::source_location where) {
  char* const at = shared_pointer(to, size, where);
  if (reinterpret_cast<std::uintptr_t>(from) % size != 0) {
    fail("the source of a copy is not aligned to " + std::to_string(size) + " bytes", where);
  }
  if (bytes > size) fail("a copy of more bytes than its place has", where);
  Thread& t = cta().current();
  t.copies.push_back({at, from, bytes, size});
  ++t.open;
  std::memset(at, kGarbage, size);
}

void land_copies() {
  Thread& t = cta().current();
  land(t, t.copies.size());
  std::fill(t.groups.begin(), t.groups.end(), 0);
  t.open = 0;
}

void commit_copies() {
  Thread& t = cta().current();
  t.groups.push_back(t.open);
  t.open = 0;
}

void wait_copies(int left) {
  Thread& t = cta().current();
  if (t.groups.size() <= static_cast<std::size_t>(left)) return;
  const std::size_t groups = t.groups.size() - static_cast<std::size_t>(left);
  std::size_t landed = 0;
  for (std::size_t g = 0; g < groups; ++g) landed += t.groups[g];
  land(t, landed);
  t.groups.erase(t.groups.begin(), t.groups.begin() + static_cast<std::ptrdiff_t>(groups));
}

}  // namespace emulation
