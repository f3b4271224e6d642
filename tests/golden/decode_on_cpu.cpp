#include <cstdint>
#include <vector>

#include "golden/decode_backend.h"
#include "pagedkv/cpu.h"

namespace golden {

void run_decode(const pagedkv::DecodeArgs& args, const char*) {
  std::vector<char> workspace(pagedkv::cpu::decode_workspace_bytes(args) + 256);
  const auto at = reinterpret_cast<std::uintptr_t>(workspace.data());
  pagedkv::cpu::decode(args, {workspace.data() + (256 - at % 256), workspace.size() - 256});
}

double probability_error() {
  return 0;
}

std::string why_not_run() {
  return {};
}

}  // namespace golden
