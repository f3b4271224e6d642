#pragma once
// Runs the tests of a suite on every SIMD target of this machine.

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "pagedkv/cpu.h"

namespace ops {

class OnTarget : public testing::TestWithParam<std::string_view> {
 protected:
  void SetUp() override {
    before_ = pagedkv::cpu::target();
    pagedkv::cpu::set_target(GetParam());
  }
  void TearDown() override { pagedkv::cpu::set_target(before_); }

 private:
  std::string_view before_;
};

inline auto all_targets() {
  const auto targets = pagedkv::cpu::targets();
#if defined(__SANITIZE_THREAD__)
  // Threads do the same whatever the instructions, and each target takes a minute.
  return testing::ValuesIn(targets.begin(), targets.begin() + 1);
#else
  return testing::ValuesIn(targets.begin(), targets.end());
#endif
}

inline std::string target_name(const testing::TestParamInfo<std::string_view>& test) {
  return std::string(test.param);
}

}  // namespace ops
