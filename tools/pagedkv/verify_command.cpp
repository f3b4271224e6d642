#include <iomanip>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "pagedkv/cpu.h"
#include "pagedkv/self_check.h"

namespace pagedkv::tool {
namespace {

struct Options {
  bool full = false;
  int threads = 0;
  bool json = false;
};

std::string hex(std::uint64_t x) {
  std::ostringstream s;
  s << std::hex << std::setw(16) << std::setfill('0') << x;
  return s.str();
}

std::vector<CheckResult> collect(const Options& o) {
  std::vector<CheckResult> all = check_arithmetic(o.full ? CheckInputs::full : CheckInputs::sample, o.threads);
  for (CheckResult& r : check_layouts()) all.push_back(std::move(r));
  for (const std::string_view target : cpu::targets()) {
    cpu::set_target(target);
    for (CheckResult& r : check_cpu_cache_bytes()) {
      r.name.append("_").append(target);
      all.push_back(std::move(r));
    }
  }
  return all;
}

void run(const Options& o) {
  const std::vector<CheckResult> results = collect(o);
  int wrong = 0;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const CheckResult& r : results) {
    wrong += r.ok() ? 0 : 1;
    if (o.json) {
      rows.push_back({{"name", r.name}, {"expected", hex(r.expected)}, {"actual", hex(r.actual)}, {"ok", r.ok()}});
    } else {
      std::cout << std::left << std::setw(48) << r.name << ' ' << hex(r.actual)
                << (r.ok() ? "  ok" : "  WRONG, expected " + hex(r.expected)) << '\n';
    }
  }
  if (o.json) std::cout << rows.dump(2) << '\n';
  const std::string total = std::to_string(results.size());
  if (wrong > 0) throw Failure(std::to_string(wrong) + " of " + total + " hashes are wrong on this machine");
  if (!o.json) std::cout << "all " << total << " hashes are right on this machine\n";
}

}  // namespace

void add_verify_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "verify", "check that codecs, RoPE, layouts and cache bytes on this machine are those of every other one");
  command->add_flag("--full", options->full, "all inputs of every table instead of a sample: minutes");
  command->add_option("--threads", options->threads, "at most this many, 0: all")->check(CLI::Range(0, 1024));
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options] { run(*options); });
}

}  // namespace pagedkv::tool
