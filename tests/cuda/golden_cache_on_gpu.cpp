// Puts the device in the place of the CPU for the recorded cache cases.

#include <stdexcept>

#include "cuda/device_ops.h"
#include "golden/golden_case.h"

namespace {

std::string why_not_run() {
  if (support::have_device()) return {};
  if (support::device_required()) throw std::runtime_error("PAGEDKV_REQUIRE_GPU=1, but there is no CUDA device");
  return "no CUDA device";
}

const bool kReplaced = [] {
  golden::cache_backend = {[](const pagedkv::WriteKvArgs& a) { support::device_write_kv(a); },
                           [](const pagedkv::FlattenKvArgs& a) { support::device_flatten_kv(a); }, why_not_run};
  return true;
}();

}  // namespace
