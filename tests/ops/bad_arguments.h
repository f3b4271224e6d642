#pragma once
// Bad arguments as data: what is spoilt, and which Error must come of it while nothing is written.

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pagedkv/error.h"

namespace bad_arguments {

/// What came of a call with one spoilt argument.
struct Outcome {
  std::optional<pagedkv::Error> error;
  std::string touched;  ///< empty if nothing was written
};

struct BadArgument {
  std::string argument;
  std::string value;  ///< "*" where it is an address
  std::string accepted;
  std::function<Outcome()> call;
};

/// Calls fixture F's operation with one thing spoilt. F: run() executes the operation, why_touched() is empty as long
/// as nothing was written.
template <class F>
BadArgument bad(std::string argument, std::string value, std::string accepted, std::function<void(F&)> spoil) {
  const auto call = [spoil = std::move(spoil)] {
    Outcome outcome;
    F fixture;
    spoil(fixture);
    try {
      fixture.run();
    } catch (const pagedkv::Error& e) {
      outcome.error = e;
    }
    outcome.touched = fixture.why_touched();
    return outcome;
  };
  return {std::move(argument), std::move(value), std::move(accepted), call};
}

/// A call that has nothing to write to.
inline BadArgument bad_call(std::string argument, std::string value, std::string accepted,
                            std::function<void()> function) {
  const auto call = [function = std::move(function)] {
    Outcome outcome;
    try {
      function();
    } catch (const pagedkv::Error& e) {
      outcome.error = e;
    }
    return outcome;
  };
  return {std::move(argument), std::move(value), std::move(accepted), call};
}

using Table = std::vector<BadArgument>;

/// An address one byte off.
template <class T>
T* misaligned(T* p) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(p) + 1);
}

/// An enumerator that does not exist.
template <class E>
E no_such() {
  return static_cast<E>(99);
}

inline void expect_errors(const Table& table) {
  for (const BadArgument& row : table) {
    SCOPED_TRACE(row.argument + " = " + row.value + "; accepted: " + row.accepted);
    const Outcome outcome = row.call();
    EXPECT_EQ(outcome.touched, "");
    if (!outcome.error) {
      ADD_FAILURE() << "no Error";
      continue;
    }
    EXPECT_EQ(outcome.error->code(), pagedkv::ErrorCode::invalid_argument);
    EXPECT_EQ(outcome.error->argument(), row.argument);
    EXPECT_EQ(row.value == "*" ? "*" : outcome.error->value(), row.value);
    EXPECT_EQ(outcome.error->accepted(), row.accepted);
  }
}

/// The fixture as it is works and writes.
template <class Fixture>
void expect_good() {
  Fixture good;
  EXPECT_NO_THROW(good.run());
  EXPECT_NE(good.why_touched(), "");
}

}  // namespace bad_arguments
