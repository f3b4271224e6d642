#include "pagedkv/self_check.h"

#include <gtest/gtest.h>

#include <set>

#include "pagedkv/core/check_tables.h"
#include "pagedkv/cpu.h"

namespace pagedkv {
namespace {

void expect_all_ok(const std::vector<CheckResult>& results) {
  ASSERT_FALSE(results.empty());
  for (const CheckResult& r : results) EXPECT_EQ(r.expected, r.actual) << r.name;
}

TEST(SelfCheck, ArithmeticHashesHold) {
  expect_all_ok(check_arithmetic(CheckInputs::sample));
}

TEST(SelfCheck, LayoutHashesHold) {
  expect_all_ok(check_layouts());
}

// On every SIMD target of this machine.
TEST(SelfCheck, CacheBytesHold) {
  const std::string in_use(cpu::target());
  for (const std::string_view target : cpu::targets()) {
    cpu::set_target(target);
    SCOPED_TRACE(target);
    expect_all_ok(check_cpu_cache_bytes());
  }
  cpu::set_target(in_use);
}

TEST(SelfCheck, ThreadsDoNotMatter) {
  const auto one = check_arithmetic(CheckInputs::sample, 1);
  const auto three = check_arithmetic(CheckInputs::sample, 3);
  ASSERT_EQ(one.size(), three.size());
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i].actual, three[i].actual) << one[i].name;
}

TEST(SelfCheck, TablesAreListedOnceAndInOrder) {
  std::set<std::string> names;
  std::size_t i = 0;
  for (const core::CheckTable& table : core::kCheckTables) {
    EXPECT_EQ(static_cast<std::size_t>(table.id), i++);
    EXPECT_TRUE(names.insert(table.name).second) << table.name;
  }
}

// One wrong bit of one result changes the hash.
TEST(SelfCheck, HashSeesOneBit) {
  const std::uint64_t share = core::check_share(12345, 0x42);
  for (int bit = 0; bit < 64; ++bit) EXPECT_NE(share, core::check_share(12345, 0x42 ^ (std::uint64_t{1} << bit)));
  EXPECT_NE(share, core::check_share(12346, 0x42));
}

}  // namespace
}  // namespace pagedkv
