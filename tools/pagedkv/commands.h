#pragma once
// The subcommands of the command line tool. Each adds itself to the app and runs when it was chosen.

#include <CLI/CLI.hpp>
#include <stdexcept>
#include <string>

#include "pagedkv/cache_config.h"
#include "pagedkv/types.h"

namespace pagedkv::tool {

/// Each returns nothing and throws CLI::Error or pagedkv::Error; a failed check ends in Failure.
void add_layout_command(CLI::App& app);
void add_verify_command(CLI::App& app);
void add_bench_command(CLI::App& app);

/// A command did its work and the answer is "no": exit status 1, `what` as the last line.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Reads "same", "int8" or "int4", or K/V as in "int8/int4".
/// @throws CLI::ValidationError
KvFormat parse_format(const std::string& text);

/// Adds --kv-heads, --head-dim, --block-len and --dtype to a command.
void add_config_options(CLI::App& command, CacheConfig& config);

}  // namespace pagedkv::tool
