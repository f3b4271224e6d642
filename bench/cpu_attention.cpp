// Attention on the CPU against what the machine can do: decode against the memory's read bandwidth, prefill against
// its multiply-adds. Every quantity is measured once per round, so that a busy moment touches all of them.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "bench/attention_work.h"
#include "bench/machine_limits.h"
#include "bench/samples.h"

namespace {

constexpr double kColdBytes = 700e6;  // more than any cache holds

struct Options {
  std::string op = "decode";
  bench::AttentionShape shape;
  std::vector<std::string> formats = {"f16", "int8", "int4"};
  int rounds = 15;
  double footprint = kColdBytes;
};

struct Line {
  std::string name;
  std::unique_ptr<bench::AttentionWork> work;
  bench::Samples seconds;
};

pagedkv::DType dtype_named(const std::string& name) {
  return name == "f32" ? pagedkv::DType::f32 : name == "bf16" ? pagedkv::DType::bf16 : pagedkv::DType::f16;
}

pagedkv::KvFormat format_named(const std::string& name) {
  using pagedkv::KvType;
  if (name == "int8") return {KvType::int8, KvType::int8};
  if (name == "int4") return {KvType::int4, KvType::int4};
  if (name == "k8v4") return {KvType::int8, KvType::int4};
  return {};
}

Line make_line(const Options& options, const std::string& name) {
  bench::AttentionShape shape = options.shape;
  shape.dtype = dtype_named(name);
  shape.format = format_named(name);
  if (options.op == "decode") {
    bench::AttentionShape one = shape;
    one.layers = 1;
    const double bytes = bench::AttentionWork(one).cache_bytes_read();
    shape.layers = static_cast<int>(options.footprint / bytes) + 1;
  }
  return {bench::format_name(shape.dtype, shape.format), std::make_unique<bench::AttentionWork>(shape), {}};
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  options.shape.threads = 2;
  CLI::App app("CPU attention against the machine's limits");
  app.add_option("--op", options.op)->check(CLI::IsMember({"decode", "prefill"}));
  app.add_option("--formats", options.formats, "f32, f16, bf16, or f16 with int8, int4 or k8v4")
      ->delimiter(',')
      ->check(CLI::IsMember({"f32", "f16", "bf16", "int8", "int4", "k8v4"}));
  app.add_option("--batch", options.shape.batch);
  app.add_option("--q-heads", options.shape.q_heads);
  app.add_option("--kv-heads", options.shape.kv_heads);
  app.add_option("--head-dim", options.shape.head_dim);
  app.add_option("--block-len", options.shape.block_len);
  app.add_option("--q-len", options.shape.q_len);
  app.add_option("--k-len", options.shape.k_len);
  app.add_option("--threads", options.shape.threads);
  app.add_option("--rounds", options.rounds);
  app.add_option("--footprint", options.footprint, "bytes of cache that decode goes through before it comes back");
  CLI11_PARSE(app, argc, argv);

  std::vector<Line> lines;
  for (const std::string& name : options.formats) lines.push_back(make_line(options, name));
  bench::ReadBandwidth reader(options.shape.threads, static_cast<std::size_t>(kColdBytes));
  bench::Samples bandwidth;
  bench::Samples rate;
  for (int round = 0; round < options.rounds; ++round) {
    bandwidth.add(reader.measure());
    rate.add(bench::fma_rate(options.shape.threads, 0.02));
    for (Line& line : lines) line.seconds.add(line.work->run());
  }

  fmt::print("target {}, {} threads, {}: batch {}, heads {}/{}, head_dim {}, block_len {}, q_len {}, k_len {}\n",
             pagedkv::cpu::target(), options.shape.threads, options.op, options.shape.batch, options.shape.q_heads,
             options.shape.kv_heads, options.shape.head_dim, options.shape.block_len, options.shape.q_len,
             options.shape.k_len);
  fmt::print("read {:.1f} GB/s (best {:.1f}), float32 multiply-add {:.0f} GFLOP/s (best {:.0f})\n",
             bandwidth.median() * 1e-9, bandwidth.highest() * 1e-9, rate.median() * 1e-9, rate.highest() * 1e-9);
  fmt::print("{:<16}{:>10}{:>10}{:>10}{:>8}{:>12}{:>8}{:>12}{:>8}\n", "format", "median ms", "best ms", "p75 ms",
             "/first", "GB/s", "of read", "GFLOP/s", "of fma");
  for (const Line& line : lines) {
    const double t = line.seconds.median();
    const double bytes = line.work->cache_bytes_read();
    const double flop = line.work->flop();
    fmt::print("{:<16}{:>10.3f}{:>10.3f}{:>10.3f}{:>8.2f}{:>12.2f}{:>8.2f}{:>12.1f}{:>8.2f}\n", line.name, t * 1e3,
               line.seconds.lowest() * 1e3, line.seconds.quantile(0.75) * 1e3, t / lines.front().seconds.median(),
               bytes / t * 1e-9, bytes / t / bandwidth.median(), flop / t * 1e-9, flop / t / rate.median());
  }
}
