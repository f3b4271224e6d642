#include <algorithm>
#include <chrono>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/machine_limits.h"
#include "bench/samples.h"
#include "bench/workload.h"
#include "commands.h"
#include "pagedkv/version.h"

namespace pagedkv::tool {
namespace {

using bench::Samples;
using bench::Workload;

struct Options {
  bench::Shape shape{.config = {.kv_heads = 8}, .threads = 0};
  std::vector<std::string> formats = {"same", "int8", "int4", "int8/int4"};
  std::vector<std::string> operations = {"decode", "write", "flatten"};
  int repetitions = 11;
  std::string json;
};

/// What the machine can do at most, in bytes or floating-point operations per second.
enum class Limit : std::uint8_t { read, copy, multiply_add };

struct Limits {
  Samples read, copy, multiply_add;

  const Samples& operator[](Limit limit) const {
    return limit == Limit::read ? read : limit == Limit::copy ? copy : multiply_add;
  }
};

struct Operation {
  void (Workload::*run)();
  double (Workload::*work)() const;  ///< bytes, or floating-point operations with Limit::multiply_add
  Limit limit;
};

const std::map<std::string, Operation> kOperations = {
    {"decode", {&Workload::decode, &Workload::decode_bytes, Limit::read}},
    {"prefill", {&Workload::prefill, &Workload::prefill_flop, Limit::multiply_add}},
    {"write", {&Workload::write, &Workload::write_bytes, Limit::copy}},
    {"flatten", {&Workload::flatten, &Workload::flatten_bytes, Limit::copy}},
};

struct Row {
  std::string operation, format;
  double work = 0;
  Samples seconds;
  Samples to_first;  ///< time over that of the first format, in the same repetition
};

struct Report {
  Limits limits;
  std::vector<Row> rows;

  /// Work per second, at the median.
  static double rate(const Row& row) { return row.work / row.seconds.median(); }
  double fraction(const Row& row) const { return rate(row) / limits[kOperations.at(row.operation).limit].median(); }
};

double seconds_of(Workload& workload, const Operation& operation) {
  const auto start = std::chrono::steady_clock::now();
  (workload.*operation.run)();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Every repetition measures the machine's limits, then each operation and format once, so that a busy moment of the
/// machine touches all alike.
Report measure(const Options& o) {
  std::vector<std::unique_ptr<Workload>> workloads;
  for (const std::string& format : o.formats) {
    bench::Shape shape = o.shape;
    shape.config.format = parse_format(format);
    workloads.push_back(std::make_unique<Workload>(shape));
  }
  Report report;
  for (const std::string& operation : o.operations) {
    for (std::size_t f = 0; f < workloads.size(); ++f) {
      const double work = (*workloads[f].*kOperations.at(operation).work)();
      report.rows.push_back({operation, o.formats[f], work, {}, {}});
    }
  }
  bench::MemoryBandwidth memory(o.shape.threads);
  for (int repetition = -1; repetition < o.repetitions; ++repetition) {  // the first warms up and is dropped
    const double read = memory.read();
    const double copy = memory.copy();
    const double multiply_add = bench::fma_rate(o.shape.threads, 0.02);
    std::vector<double> times;
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      Workload& workload = *workloads[i % workloads.size()];
      workload.evict();
      times.push_back(seconds_of(workload, kOperations.at(report.rows[i].operation)));
    }
    if (repetition < 0) continue;
    report.limits.read.add(read);
    report.limits.copy.add(copy);
    report.limits.multiply_add.add(multiply_add);
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      report.rows[i].seconds.add(times[i]);
      report.rows[i].to_first.add(times[i] / times[i - i % workloads.size()]);
    }
  }
  return report;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

nlohmann::ordered_json spread_json(const Samples& s, double unit) {
  return {{"median", s.median() * unit}, {"min", s.lowest() * unit}, {"max", s.highest() * unit}};
}

nlohmann::ordered_json to_json(const Options& o, const Report& report) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Row& row : report.rows) {
    const bool flop = kOperations.at(row.operation).limit == Limit::multiply_add;
    rows.push_back({{"operation", row.operation},
                    {"format", row.format},
                    {flop ? "flop" : "bytes", row.work},
                    {"milliseconds", spread_json(row.seconds, 1e3)},
                    {flop ? "gflop_per_s" : "gb_per_s", Report::rate(row) / 1e9},
                    {"fraction_of_limit", report.fraction(row)},
                    {"time_over_first_format", spread_json(row.to_first, 1)}});
  }
  const bench::Shape& s = o.shape;
  return {{"version", version()},
          {"cpu", cpu_name()},
          {"target", cpu::target()},
          {"threads", s.threads},
          {"repetitions", o.repetitions},
          {"shape",
           {{"batch", s.batch},
            {"context", s.context},
            {"q_len", s.q_len},
            {"q_heads", s.q_heads},
            {"kv_heads", s.config.kv_heads},
            {"head_dim", s.config.head_dim},
            {"block_len", s.config.block_len},
            {"dtype", name(s.config.dtype)}}},
          {"read_gb_per_s", spread_json(report.limits.read, 1e-9)},
          {"copy_gb_per_s", spread_json(report.limits.copy, 1e-9)},
          {"multiply_add_gflop_per_s", spread_json(report.limits.multiply_add, 1e-9)},
          {"rows", rows}};
}

void print_limit(const char* what, const Samples& s) {
  std::cout << what << s.median() / 1e9 << " (" << s.lowest() / 1e9 << " .. " << s.highest() / 1e9 << ")\n";
}

void print(const Options& o, const Report& report) {
  const bench::Shape& s = o.shape;
  std::cout << cpu_name() << ", " << s.threads << " threads, " << cpu::target() << "; batch " << s.batch << ", context "
            << s.context << ", " << s.q_heads << "/" << s.config.kv_heads << " heads, head_dim " << s.config.head_dim
            << ", " << name(s.config.dtype) << ", blocks of " << s.config.block_len << "\ncold caches, median of "
            << o.repetitions << " (min .. max)\n"
            << std::fixed << std::setprecision(1);
  print_limit("read bandwidth, GB/s                 ", report.limits.read);
  print_limit("copy bandwidth (read + written), GB/s ", report.limits.copy);
  print_limit("float32 multiply-adds, GFLOP/s       ", report.limits.multiply_add);
  std::cout << "\noperation  format           ms      min ..     max   GB/s (prefill: GFLOP/s)  of limit  time/"
            << o.formats.front() << '\n';
  for (const Row& row : report.rows) {
    std::cout << std::left << std::setw(11) << row.operation << std::setw(10) << row.format << std::right
              << std::setprecision(3) << std::setw(9) << row.seconds.median() * 1e3 << std::setw(9)
              << row.seconds.lowest() * 1e3 << " .." << std::setw(8) << row.seconds.highest() * 1e3
              << std::setprecision(1) << std::setw(25) << Report::rate(row) / 1e9 << std::setprecision(2)
              << std::setw(10) << report.fraction(row) << std::setw(10) << row.to_first.median() << '\n';
  }
  std::cout << "limit: decode reads, write and flatten copy, prefill multiplies\n";
}

void run(Options o) {
  if (o.shape.threads == 0) o.shape.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  o.shape.q_len = std::min(o.shape.q_len, o.shape.context);
  const Report report = measure(o);
  print(o, report);
  if (o.json.empty()) return;
  std::ofstream file(o.json);
  file << to_json(o, report).dump(2) << '\n';
  file.close();
  if (!file) throw Failure("cannot write " + o.json);
}

}  // namespace

void add_bench_command(CLI::App& app) {
  const auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("bench", "time the CPU's operations against what the machine can do");
  bench::Shape& shape = o->shape;
  command->add_option("--context", shape.context, "tokens of every sequence")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command->add_option("--batch", shape.batch, "sequences")->check(CLI::Range(1, 65536))->capture_default_str();
  command->add_option("--q-len", shape.q_len, "new tokens of a prefill, at most the context")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command->add_option("--q-heads", shape.q_heads, "heads of queries")->capture_default_str();
  add_config_options(*command, shape.config);
  command->add_option("--formats", o->formats, "stored types; the first is what the others are compared with")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--operations", o->operations, "any of decode, prefill, write, flatten")
      ->delimiter(',')
      ->check(CLI::IsMember(kOperations))
      ->capture_default_str();
  command->add_option("--threads", shape.threads, "0: all")->check(CLI::Range(0, 1024))->capture_default_str();
  command->add_option("--repetitions", o->repetitions, "measurements per row")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  command->add_option("--json", o->json, "file to write the same as JSON");
  command->callback([o] { run(*o); });
}

}  // namespace pagedkv::tool
