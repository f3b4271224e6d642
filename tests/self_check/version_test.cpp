#include "pagedkv/version.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

TEST(Version, HasThreeNumbers) {
  const std::string v = pagedkv::version();
  EXPECT_EQ(std::count(v.begin(), v.end(), '.'), 2);
}
