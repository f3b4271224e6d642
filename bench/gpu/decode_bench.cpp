// Decode attention on the GPU, which writes the new tokens (RoPE on keys) in the same call, beside the read-only
// bandwidth measured in the same run: with and without read_ahead; also with RoPE of q, without the write, and with
// write_kv as a launch of its own, all of these without read_ahead. Prints a table and writes JSON.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu/measure.h"
#include "bench/gpu/paged_slab.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cuda.h"

namespace {

using pagedkv::DType;
using pagedkv::KvType;

struct Work {
  std::string name;
  std::vector<int> k_len;
  int q_len = 1;
  int q_heads = 32;
  int kv_heads = 8;
  int head_dim = 128;
  int block_len = 64;
  DType dtype = DType::f16;
  KvType stored = KvType::same;
};

constexpr double kWarmUpMs = 40;
/// Replays go round layers that hold this much together, several times the L2 cache.
constexpr double kColdBytes = 400e6;
constexpr int kMaxLayers = 64;
/// So that with read_ahead, as in a model, a call reads another layer than the one before it.
constexpr int kFewestLayers = 2;
constexpr double kBytesPerGraph = 4e9;
/// So that the start of a graph, which its calls share, counts as little as in the read bandwidth, measured with 8.
constexpr int kFewestLaunches = 8;

/// A filled cache in pseudo-random block order, queries and outputs.
class Set {
 public:
  explicit Set(const Work& w) {
    const double tokens = std::accumulate(w.k_len.begin(), w.k_len.end(), 0.0);
    pagedkv::CacheConfig config;
    config.kv_heads = w.kv_heads;
    config.head_dim = w.head_dim;
    config.block_len = w.block_len;
    config.dtype = w.dtype;
    config.format = {w.stored, w.stored};
    config.shared_kv = w.head_dim == 576;
    const pagedkv::BlockLayout one = pagedkv::make_layout(config);
    cache_bytes = tokens * static_cast<double>(one.layer_bytes) / w.block_len;
    layers = std::clamp(static_cast<int>(kColdBytes / cache_bytes), kFewestLayers, kMaxLayers);
    config.layers = layers;
    layout_ = pagedkv::make_layout(config);

    slab_ = bench::PagedSlab(layout_, w.k_len, 7);

    const std::vector<int> q_len(w.k_len.size(), w.q_len);
    const auto cu_q = bench::cumulative(q_len);
    const auto cu_k = bench::cumulative(w.k_len);
    cu_q_ = bench::to_device(cu_q);
    cu_k_ = bench::to_device(cu_k);
    const auto rows = static_cast<std::size_t>(cu_q.back()) * static_cast<std::size_t>(w.q_heads);
    const int v_dim = config.shared_kv ? 512 : w.head_dim;
    q_ = bench::Buffer(rows * static_cast<std::size_t>(w.head_dim) * 2);
    q_.fill_random(w.dtype == DType::bf16, 2);
    o_ = bench::Buffer(rows * static_cast<std::size_t>(v_dim) * 2);

    args.layout = layout_;
    args.table = slab_.table();
    args.batch = static_cast<std::int32_t>(w.k_len.size());
    args.cu_q = cu_q_.as<std::int32_t>();
    args.cu_k = cu_k_.as<std::int32_t>();
    args.max_total_q = cu_q.back();
    args.max_q_len = w.q_len;
    args.max_k_len = *std::max_element(w.k_len.begin(), w.k_len.end());
    args.q_heads = w.q_heads;
    args.q = q_.as<char>();
    args.q_strides = pagedkv::packed_strides(w.q_heads, w.head_dim);
    args.o = o_.as<char>();
    args.o_strides = pagedkv::packed_strides(w.q_heads, v_dim);
    args.v_dim = config.shared_kv ? v_dim : 0;
    args.v_offset = config.shared_kv ? w.head_dim - v_dim : 0;

    const auto new_rows = static_cast<std::size_t>(cu_q.back()) * static_cast<std::size_t>(w.kv_heads);
    const int sides = config.shared_kv ? 1 : 2;
    new_ = bench::Buffer(new_rows * static_cast<std::size_t>(w.head_dim * sides) * 2);
    new_.fill_random(w.dtype == DType::bf16, 3);
    bytes = cache_bytes + static_cast<double>(q_.bytes() + o_.bytes() + new_.bytes());
    write.layout = layout_;
    write.table = args.table;
    write.batch = args.batch;
    write.cu_q = args.cu_q;
    write.cu_k = args.cu_k;
    write.max_total_q = args.max_total_q;
    write.k = new_.as<char>();
    write.v = config.shared_kv ? nullptr : new_.as<char>() + std::ptrdiff_t{2} * w.kv_heads * w.head_dim;
    write.strides = pagedkv::packed_strides(std::int64_t{sides} * w.kv_heads, w.head_dim);
    fill(cu_k.back());
    pagedkv::RopeParams rope;
    rope.type = pagedkv::RopeType::standard;
    rope.pairs = pagedkv::RopePairs::half_split;
    rope.dim = config.shared_kv ? 64 : w.head_dim;
    write.rope = pagedkv::make_rope_table(rope, w.head_dim);
    fused = args;
    fused.fuse_write = {write.k, write.v, write.strides, nullptr, nullptr, nullptr};
    fused.rope = write.rope;
    workspace_ = bench::Buffer(pagedkv::cuda::decode_workspace_bytes(fused));
    workspace = {workspace_.as<char>(), workspace_.bytes()};
  }

  pagedkv::WriteKvArgs write;  ///< of the new tokens, with RoPE
  pagedkv::DecodeArgs args;    ///< over a cache that has them
  pagedkv::DecodeArgs fused;   ///< both in one call
  pagedkv::Workspace workspace;
  double cache_bytes = 0;  ///< of the tokens of one layer
  double bytes = 0;        ///< with q, o and the new k and v: what one call must move
  int layers = 1;

 private:
  /// Writes random keys and values for every token of every layer.
  void fill(std::int64_t tokens) {
    const auto elements = static_cast<std::size_t>(tokens) * static_cast<std::size_t>(layout_.kv_heads) *
                          static_cast<std::size_t>(layout_.head_dim);
    bench::Buffer rows(elements * 2);
    rows.fill_random(layout_.dtype == DType::bf16, 4);
    pagedkv::WriteKvArgs all = write;
    all.cu_q = all.cu_k;
    all.max_total_q = tokens;
    all.k = rows.as<char>();
    all.v = layout_.shared_kv ? nullptr : rows.as<char>();
    all.strides = pagedkv::packed_strides(layout_.kv_heads, layout_.head_dim);
    for (all.layer = 0; all.layer < layers; ++all.layer) pagedkv::cuda::write_kv(all, nullptr);
  }

  pagedkv::BlockLayout layout_;
  bench::PagedSlab slab_;
  bench::Buffer cu_q_, cu_k_, q_, o_, workspace_, new_;
};

/// Lengths between 100 and 16384, spread evenly over their logarithm.
std::vector<int> ragged() {
  std::mt19937 random(5);
  std::uniform_real_distribution<double> exponent(std::log(100.0), std::log(16384.0));
  std::vector<int> k_len(256);
  for (int& k : k_len) k = static_cast<int>(std::exp(exponent(random)));
  return k_len;
}

std::vector<Work> works() {
  constexpr KvType kStored[] = {KvType::same, KvType::int8, KvType::int4};
  std::vector<Work> all;
  const auto table = [&](const char* suffix, int q_heads, int kv_heads, int head_dim, DType dtype) {
    const std::pair<const char*, std::vector<int>> rows[] = {{"64 x 8192", std::vector<int>(64, 8192)},
                                                             {"8 x 32768", std::vector<int>(8, 32768)},
                                                             {"1 x 131072", {131072}},
                                                             {"256 ragged", ragged()},
                                                             {"1 x 1024", {1024}}};
    for (const auto& [name, k_len] : rows) {
      for (const KvType stored : kStored) {
        all.push_back({std::string(name) + suffix, k_len, 1, q_heads, kv_heads, head_dim, 64, dtype, stored});
      }
    }
  };
  table("", 32, 8, 128, DType::f16);
  table("", 32, 8, 128, DType::bf16);
  table(", 64/8 heads", 64, 8, 128, DType::f16);
  table(", 9/3 heads of 64", 9, 3, 64, DType::f16);
  for (const KvType stored : kStored) {
    all.push_back({"8 x 32768, 4 new", std::vector<int>(8, 32768), 4, 32, 8, 128, 64, DType::f16, stored});
    for (const int q_heads : {8, 64, 128}) {
      all.push_back({"8 x 8192, " + std::to_string(q_heads) + "/1 heads", std::vector<int>(8, 8192), 1, q_heads, 1, 128,
                     64, DType::f16, stored});
    }
    for (const int q_heads : {16, 128}) {
      all.push_back({"8 x 8192, MLA " + std::to_string(q_heads) + " heads", std::vector<int>(8, 8192), 1, q_heads, 1,
                     576, 64, DType::f16, stored});
    }
    all.push_back({"64 x 8192, MHA", std::vector<int>(64, 8192), 1, 8, 8, 128, 64, DType::f16, stored});
    for (const int block_len : {16, 32, 128}) {
      all.push_back({"64 x 8192, blocks of " + std::to_string(block_len), std::vector<int>(64, 8192), 1, 32, 8, 128,
                     block_len, DType::f16, stored});
    }
    for (const int head_dim : {96, 192, 256}) {
      all.push_back({"64 x 8192, head_dim " + std::to_string(head_dim), std::vector<int>(64, 8192), 1, 32, 8, head_dim,
                     64, DType::f16, stored});
    }
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Decode attention on the GPU");
  std::string out;
  std::string date;
  std::string commit;
  std::string driver;
  std::string clocks;
  std::string only;
  int replays = 11;
  app.add_option("--out", out, "JSON file to write");
  app.add_option("--date", date, "recorded in the JSON");
  app.add_option("--commit", commit, "recorded in the JSON");
  app.add_option("--driver", driver, "recorded in the JSON");
  app.add_option("--clocks", clocks, "recorded in the JSON");
  app.add_option("--replays", replays, "graph replays per measurement")->check(CLI::PositiveNumber);
  app.add_option("--only", only, "works whose name contains this");
  CLI11_PARSE(app, argc, argv);

  const bench::DeviceInfo d = bench::device_info();
  double read = 0;
  for (const std::size_t mib : {512U, 1024U, 2048U}) {
    read = std::max(read, bench::measure_bandwidth(std::size_t{mib} << 20).read);
  }
  nlohmann::json json{{"benchmark", "gpu_decode"},
                      {"device", d.name},
                      {"multiprocessors", d.multiprocessors},
                      {"l2_bytes", d.l2_bytes},
                      {"cuda_driver", d.driver},
                      {"cuda_runtime", d.runtime},
                      {"driver", driver},
                      {"date", date},
                      {"commit", commit},
                      {"clocks", clocks},
                      {"replays", replays},
                      {"read_bandwidth", read}};
  std::printf("%s, %d SMs, read-only %.3f TB/s\n%-34s %5s %5s %9s %19s %7s %8s %9s %8s %9s %9s %9s\n", d.name.c_str(),
              d.multiprocessors, read / 1e12, "work", "T", "cache", "us", "p10 .. p90", "TB/s", "of read", "ahead",
              "of read", "rotate q", "no write", "write_kv");
  // Twice over everything: where the memory of a process's first works lies can cost them 10 %, so the second round
  // counts.
  std::vector<double> first_round;
  for (int round = 0; round < 2; ++round) {
    std::size_t index = 0;
    for (const Work& w : works()) {
      if (w.name.find(only) == std::string::npos) continue;
      const Set set(w);
      const int launches = std::clamp(static_cast<int>(kBytesPerGraph / set.bytes), kFewestLaunches, 40);
      const auto call = [&](pagedkv::DecodeArgs args, int i, pagedkv::cuda::Stream stream) {
        args.layer = i % set.layers;
        pagedkv::cuda::decode(args, set.workspace, stream);
      };
      const auto time = [&](auto step) { return bench::time_graph(launches, replays, step); };
      // Rows of 1 byte are read 10 % slower in the first milliseconds after the memory was filled.
      const bench::Timing t = bench::time_graph(
          launches, replays, [&](int i, pagedkv::cuda::Stream stream) { call(set.fused, i, stream); },
          round == 0 ? 0.0 : kWarmUpMs);
      if (round == 0) {
        first_round.push_back(t.median);
        continue;
      }
      pagedkv::DecodeArgs ahead_args = set.fused;
      ahead_args.read_ahead = true;
      const bench::Timing ahead = time([&](int i, pagedkv::cuda::Stream stream) { call(ahead_args, i, stream); });
      pagedkv::DecodeArgs rotating = set.fused;
      rotating.rotate_q = true;
      const bench::Timing rotated = time([&](int i, pagedkv::cuda::Stream stream) { call(rotating, i, stream); });
      const bench::Timing alone = time([&](int i, pagedkv::cuda::Stream stream) { call(set.args, i, stream); });
      const bench::Timing two_launches = time([&](int i, pagedkv::cuda::Stream stream) {
        pagedkv::WriteKvArgs write = set.write;
        write.layer = i % set.layers;
        pagedkv::cuda::write_kv(write, stream);
        call(set.args, i, stream);
      });
      const double rate = set.bytes / (t.median * 1e-6);
      const double ahead_rate = set.bytes / (ahead.median * 1e-6);
      std::printf("%-34s %5s %5s %9.2f %9.2f %9.2f %7.3f %8.3f %9.2f %8.3f %9.2f %9.2f %9.2f\n", w.name.c_str(),
                  name(w.dtype), name(w.stored), t.median, t.p10, t.p90, rate / 1e12, rate / read, ahead.median,
                  ahead_rate / read, rotated.median, alone.median, two_launches.median);
      std::fflush(stdout);
      json["results"].push_back({{"work", w.name},
                                 {"dtype", name(w.dtype)},
                                 {"stored", name(w.stored)},
                                 {"q_len", w.q_len},
                                 {"q_heads", w.q_heads},
                                 {"kv_heads", w.kv_heads},
                                 {"head_dim", w.head_dim},
                                 {"block_len", w.block_len},
                                 {"bytes", set.bytes},
                                 {"us", t.median},
                                 {"us_p10", t.p10},
                                 {"us_p90", t.p90},
                                 {"us_first_round", first_round[index++]},
                                 {"us_read_ahead", ahead.median},
                                 {"us_read_ahead_p10", ahead.p10},
                                 {"us_read_ahead_p90", ahead.p90},
                                 {"us_rotate_q", rotated.median},
                                 {"us_without_write", alone.median},
                                 {"us_write_kv_and_decode", two_launches.median},
                                 {"bytes_per_second", rate},
                                 {"of_read_bandwidth", rate / read},
                                 {"of_read_bandwidth_read_ahead", ahead_rate / read}});
    }
  }
  if (!out.empty()) {
    std::ofstream file(out);
    file << json.dump(1) << '\n';
    if (!file.flush()) {
      std::cerr << "cannot write " << out << '\n';
      return 1;
    }
  }
  return 0;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
