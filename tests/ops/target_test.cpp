// The environment variable PAGEDKV_CPU_TARGET, read once per process: this program is run with different values of it.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "pagedkv/cpu.h"
#include "pagedkv/error.h"

namespace pagedkv::cpu {
namespace {

TEST(TargetVariable, ChoosesOrIsRefused) {
  const std::string wanted = std::getenv("PAGEDKV_CPU_TARGET") == nullptr ? "" : std::getenv("PAGEDKV_CPU_TARGET");
  EXPECT_EQ(targets().back(), "scalar");
  if (wanted.empty()) {
    EXPECT_EQ(target(), targets().front());
  } else if (wanted == "scalar") {
    EXPECT_EQ(target(), "scalar");
  } else {
    for (int attempt = 0; attempt < 2; ++attempt) {
      try {
        target();
        ADD_FAILURE() << "accepted " << wanted;
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
        EXPECT_EQ(e.argument(), "PAGEDKV_CPU_TARGET");
        EXPECT_EQ(e.value(), wanted);
        EXPECT_NE(e.accepted().find("scalar"), std::string::npos);
      }
    }
    set_target("scalar");  // a program may still choose for itself
    EXPECT_EQ(target(), "scalar");
  }
}

}  // namespace
}  // namespace pagedkv::cpu
