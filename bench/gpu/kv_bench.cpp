// write_kv and flatten_kv on the GPU, beside the bandwidth of plain kernels measured in the same run. Prints a table
// and writes JSON.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "bench/gpu/measure.h"
#include "bench/gpu/paged_slab.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/cuda.h"

namespace {

using pagedkv::DType;
using pagedkv::KvFormat;
using pagedkv::KvType;

/// The work: lengths of a batch and how its rows are stored.
struct Work {
  std::string name;
  std::vector<int> q_len;    ///< new tokens
  std::vector<int> history;  ///< tokens before them
  DType dtype = DType::f16;
  KvType stored = KvType::same;
  pagedkv::RopeParams rope;
  bool mrope = false;
  bool bias = false;
};

constexpr int kHeads = 8;
constexpr int kDim = 128;
constexpr int kBlockLen = 64;

/// One set of memory for a work: inputs, a slab, a table in pseudo-random order.
class Set {
 public:
  Set(const Work& w, std::uint64_t seed) {
    std::vector<int> k_len(w.q_len.size());
    for (std::size_t b = 0; b < k_len.size(); ++b) k_len[b] = w.q_len[b] + w.history[b];
    const auto cu_q = bench::cumulative(w.q_len);
    const auto cu_k = bench::cumulative(k_len);
    batch_ = static_cast<std::int32_t>(w.q_len.size());
    new_tokens_ = cu_q.back();
    all_tokens_ = cu_k.back();

    pagedkv::CacheConfig config;
    config.kv_heads = kHeads;
    config.head_dim = kDim;
    config.block_len = kBlockLen;
    config.dtype = w.dtype;
    config.format = {w.stored, w.stored};
    layout_ = make_layout(config);

    slab_ = bench::PagedSlab(layout_, k_len, seed);
    slab_.slab().fill_random(w.dtype == DType::bf16, seed);
    cu_q_ = bench::to_device(cu_q);
    cu_k_ = bench::to_device(cu_k);
  }

  /// Device memory of K and V rows: new tokens for write_kv, all tokens for flatten_kv.
  void make_rows(const Work& w, std::int64_t tokens, std::uint64_t seed) {
    const std::size_t bytes = static_cast<std::size_t>(tokens) * kHeads * kDim * 2;
    for (bench::Buffer* b : {&k_, &v_}) {
      *b = bench::Buffer(bytes);
      b->fill_random(w.dtype == DType::bf16, ++seed);
    }
    bias_ = bench::Buffer(std::size_t{kHeads} * kDim * 2);
    bias_.fill_random(w.dtype == DType::bf16, 77);
    base_ = bench::to_device(std::vector<float>(static_cast<std::size_t>(batch_), 50000.0F));
    std::vector<std::int32_t> ids(static_cast<std::size_t>(3 * new_tokens_));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i % 4096);
    ids_ = bench::to_device(ids);
    delta_ = bench::to_device(std::vector<std::int32_t>(static_cast<std::size_t>(batch_), 5));
  }

  pagedkv::WriteKvArgs write_args(const Work& w) const {
    pagedkv::WriteKvArgs a;
    a.layout = layout_;
    a.table = slab_.table();
    a.batch = batch_;
    a.cu_q = cu_q_.as<std::int32_t>();
    a.cu_k = cu_k_.as<std::int32_t>();
    a.max_total_q = new_tokens_;
    a.k = k_.as<>();
    a.v = v_.as<>();
    a.strides = pagedkv::packed_strides(kHeads, kDim);
    if (w.bias) a.k_bias = a.v_bias = bias_.as<>();
    pagedkv::RopeParams rope = w.rope;
    if (rope.type == pagedkv::RopeType::dynamic) rope.dynamic_base = base_.as<float>();
    if (w.mrope) {
      rope.mrope = pagedkv::MropeMode::interleaved;
      rope.mrope_section[0] = 24;
      rope.mrope_section[1] = rope.mrope_section[2] = 20;
      rope.mrope_position_ids = ids_.as<std::int32_t>();
      rope.mrope_offsets = cu_q_.as<std::int32_t>();
      rope.mrope_length = cu_q_.as<std::int32_t>() + 1;  // at least the q_len of each sequence
      rope.mrope_delta = delta_.as<std::int32_t>();
    }
    a.rope = make_rope_table(rope, kDim);
    return a;
  }

  pagedkv::FlattenKvArgs flatten_args() const {
    pagedkv::FlattenKvArgs a;
    a.layout = layout_;
    a.table = slab_.table();
    a.batch = batch_;
    a.cu_k = cu_k_.as<std::int32_t>();
    a.max_total_k = all_tokens_;
    a.k = k_.as<>();
    a.v = v_.as<>();
    a.strides = {0, kDim, kDim, std::int64_t{all_tokens_} * kDim};  // [head][token][D]
    return a;
  }

  std::int64_t new_tokens() const { return new_tokens_; }
  std::int64_t all_tokens() const { return all_tokens_; }
  /// Bytes of one token's stored rows and parameters, all heads, K and V.
  std::int64_t stored_token_bytes() const { return layout_.layer_bytes / kBlockLen; }

 private:
  pagedkv::BlockLayout layout_;
  std::int32_t batch_ = 0;
  std::int32_t new_tokens_ = 0;
  std::int32_t all_tokens_ = 0;
  bench::PagedSlab slab_;
  bench::Buffer cu_q_, cu_k_, k_, v_, bias_, base_, ids_, delta_;
};

constexpr std::int64_t kRowBytes = std::int64_t{2} * kHeads * kDim * 2;  // one token's K and V as T

struct Result {
  std::int64_t bytes;  ///< inputs read once and outputs written once
  bench::Timing us;
};

/// Sets that together are several times the L2 cache, and launches that go round them.
int sets_for(std::int64_t bytes) {
  return static_cast<int>(std::clamp<std::int64_t>((std::int64_t{320} << 20) / bytes, 3, 600));
}

Result run_write(const Work& w, int replays) {
  std::vector<Set> sets;
  std::int64_t bytes = 0;
  do {
    sets.emplace_back(w, sets.size());
    sets.back().make_rows(w, sets.back().new_tokens(), 1000 + 2 * sets.size());
    bytes = sets.back().new_tokens() * (kRowBytes + sets.back().stored_token_bytes());
  } while (static_cast<int>(sets.size()) < sets_for(bytes));
  std::vector<pagedkv::WriteKvArgs> args;
  for (const Set& s : sets) args.push_back(s.write_args(w));
  const int launches = std::max(static_cast<int>(sets.size()), 6);
  return {bytes, bench::time_graph(launches, replays, [&](int i, pagedkv::cuda::Stream stream) {
            pagedkv::cuda::write_kv(args[static_cast<std::size_t>(i) % args.size()], stream);
          })};
}

Result run_flatten(const Work& w, int replays) {
  std::vector<Set> sets;
  std::int64_t bytes = 0;
  do {
    sets.emplace_back(w, sets.size());
    sets.back().make_rows(w, sets.back().all_tokens(), 1000 + 2 * sets.size());
    bytes = sets.back().all_tokens() * (kRowBytes + sets.back().stored_token_bytes());
  } while (static_cast<int>(sets.size()) < sets_for(bytes));
  std::vector<pagedkv::FlattenKvArgs> args;
  for (const Set& s : sets) args.push_back(s.flatten_args());
  const int launches = std::max(static_cast<int>(sets.size()), 6);
  return {bytes, bench::time_graph(launches, replays, [&](int i, pagedkv::cuda::Stream stream) {
            pagedkv::cuda::flatten_kv(args[static_cast<std::size_t>(i) % args.size()], stream);
          })};
}

pagedkv::RopeParams rope_of(pagedkv::RopeType type, pagedkv::RopePairs pairs) {
  pagedkv::RopeParams r;
  r.type = type;
  r.pairs = pairs;
  r.dim = type == pagedkv::RopeType::none ? 0 : kDim;
  r.factor = type == pagedkv::RopeType::yarn ? 4.0 : 1.0;
  r.original_max_position = 4096;
  return r;
}

std::vector<Work> write_works(bool quick) {
  using pagedkv::RopePairs;
  using pagedkv::RopeType;
  const auto standard = rope_of(RopeType::standard, RopePairs::interleaved);
  std::vector<Work> works;
  const auto add = [&](std::string name, std::vector<int> q_len, int history, DType dtype, KvType stored,
                       const pagedkv::RopeParams& rope) -> Work& {
    std::vector<int> histories(q_len.size(), history);
    works.push_back({std::move(name), std::move(q_len), std::move(histories), dtype, stored, rope});
    return works.back();
  };
  const std::vector<int> large(8, 4096);
  const std::vector<int> decode(64, 1);
  std::vector<int> ragged(64, 1);
  ragged[20] = 32768;
  std::vector<int> even(64, 513);
  even[63] = 32831 - 63 * 513;
  constexpr KvType kStored[] = {KvType::same, KvType::int8, KvType::int4};
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const KvType s : kStored) add("write 8 x 4096", large, 0, dtype, s, standard);
  }
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const KvType s : kStored) add("write 64 x 1", decode, 20, dtype, s, standard);
  }
  for (const KvType s : kStored) {
    add("write even 32831 in 64", even, 0, DType::f16, s, standard);
    add("write ragged 32768 + 63 x 1", ragged, 0, DType::f16, s, standard);
  }
  if (quick) return works;
  for (const KvType s : kStored) {
    add("write 8 x 4096, no RoPE", large, 0, DType::f16, s, rope_of(RopeType::none, RopePairs::interleaved));
    add("write 8 x 4096, half-split", large, 0, DType::f16, s, rope_of(RopeType::standard, RopePairs::half_split));
    add("write 8 x 4096, yarn", large, 0, DType::f16, s, rope_of(RopeType::yarn, RopePairs::interleaved));
    add("write 8 x 4096, dynamic", large, 0, DType::f16, s, rope_of(RopeType::dynamic, RopePairs::interleaved));
    add("write 8 x 4096, mrope", large, 0, DType::f16, s, standard).mrope = true;
    add("write 8 x 4096, bias", large, 0, DType::f16, s, standard).bias = true;
  }
  add("write 64 x 1, dynamic", decode, 20, DType::f16, KvType::int8,
      rope_of(RopeType::dynamic, RopePairs::interleaved));
  add("write 64 x 1, no RoPE", decode, 20, DType::f16, KvType::int8, rope_of(RopeType::none, RopePairs::interleaved));
  add("write 1024 x 1", std::vector<int>(1024, 1), 20, DType::f16, KvType::int8, standard);
  return works;
}

std::vector<Work> flatten_works(bool quick) {
  std::vector<Work> works;
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (const KvType s : {KvType::same, KvType::int8, KvType::int4}) {
      if (!quick) {
        works.push_back({"flatten 8 x 4096", std::vector<int>(8, 0), std::vector<int>(8, 4096), dtype, s, {}});
      }
      works.push_back({"flatten 64 x 4097", std::vector<int>(64, 0), std::vector<int>(64, 4097), dtype, s, {}});
    }
  }
  return works;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Bandwidth of write_kv and flatten_kv on the GPU");
  std::string out;
  std::string date;
  std::string commit;
  std::string driver;
  std::string clocks;
  std::string only;
  bool quick = false;
  int replays = 21;
  app.add_option("--out", out, "JSON file to write");
  app.add_option("--date", date, "recorded in the JSON");
  app.add_option("--commit", commit, "recorded in the JSON");
  app.add_option("--driver", driver, "recorded in the JSON");
  app.add_option("--clocks", clocks, "recorded in the JSON");
  app.add_option("--replays", replays, "graph replays per measurement")->check(CLI::PositiveNumber);
  app.add_option("--only", only, "works whose name contains this");
  app.add_flag("--quick", quick, "the issue's table only");
  CLI11_PARSE(app, argc, argv);

  const bench::DeviceInfo d = bench::device_info();
  nlohmann::json json{{"benchmark", "gpu_kv"},
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
                      {"shape", {{"kv_heads", kHeads}, {"head_dim", kDim}, {"block_len", kBlockLen}}}};
  std::printf("%s, %d SMs\n%10s %12s %12s %12s   TB/s\n", d.name.c_str(), d.multiprocessors, "MiB", "read", "write",
              "copy");
  double ceiling = 0;
  for (const std::size_t mib : {64U, 128U, 192U, 256U, 512U, 1024U, 2048U}) {
    const bench::Bandwidth b = bench::measure_bandwidth(std::size_t{mib} << 20);
    std::printf("%10zu %12.3f %12.3f %12.3f\n", mib, b.read / 1e12, b.write / 1e12, b.copy / 1e12);
    json["bandwidth"].push_back({{"bytes", b.bytes}, {"read", b.read}, {"write", b.write}, {"copy", b.copy}});
    ceiling = std::max(ceiling, b.copy);
  }
  json["copy_ceiling"] = ceiling;
  const bench::Timing empty = bench::measure_empty_launch();
  json["empty_launch_us"] = empty.median;
  std::printf("empty kernel in a graph: %.2f us\n", empty.median);
  std::printf("copy ceiling %.3f TB/s\n%-30s %5s %5s %9s %19s %7s %9s\n", ceiling / 1e12, "work", "T", "cache", "us",
              "p10 .. p90", "TB/s", "of copy");
  const auto report = [&](const Work& w, const Result& r) {
    const double rate = static_cast<double>(r.bytes) / (r.us.median * 1e-6);
    std::printf("%-30s %5s %5s %9.2f %9.2f %9.2f %7.3f %9.3f\n", w.name.c_str(), name(w.dtype), name(w.stored),
                r.us.median, r.us.p10, r.us.p90, rate / 1e12, rate / ceiling);
    std::fflush(stdout);
    json["results"].push_back({{"work", w.name},
                               {"dtype", name(w.dtype)},
                               {"stored", name(w.stored)},
                               {"bytes", r.bytes},
                               {"us", r.us.median},
                               {"us_p10", r.us.p10},
                               {"us_p90", r.us.p90},
                               {"bytes_per_second", rate},
                               {"of_copy_ceiling", rate / ceiling}});
  };
  const auto wanted = [&](const Work& w) { return w.name.find(only) != std::string::npos; };
  // Twice over everything: where the memory of a process's first works lies can cost them 10 %, so the second round
  // counts.
  for (const bool counts : {false, true}) {
    const auto measure = [&](const std::vector<Work>& works, Result (*run)(const Work&, int)) {
      for (const Work& w : works) {
        if (!wanted(w)) continue;
        const Result r = run(w, replays);
        if (counts) report(w, r);
      }
    };
    measure(write_works(quick), run_write);
    measure(flatten_works(quick), run_flatten);
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
