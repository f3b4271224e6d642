#include "pagedkv/self_check.h"

#include <algorithm>
#include <atomic>
#include <thread>

#include "pagedkv/cache_config.h"
#include "pagedkv/core/check_tables.h"

namespace pagedkv {
namespace {

std::uint64_t hash_table(const core::CheckTable& table, std::uint64_t step, int threads) {
  const std::uint64_t inputs = (table.inputs + step - 1) / step;
  const std::uint64_t chunk = std::uint64_t{1} << 16;
  std::atomic<std::uint64_t> next{0};
  std::atomic<std::uint64_t> hash{0};
  const auto work = [&] {
    std::uint64_t sum = 0;
    for (std::uint64_t begin = next.fetch_add(chunk); begin < inputs; begin = next.fetch_add(chunk)) {
      const std::uint64_t end = std::min(inputs, begin + chunk);
      for (std::uint64_t n = begin; n < end; ++n) {
        sum += core::check_share(n * step, core::check_result(table.id, n * step));
      }
    }
    hash += sum;
  };
  std::vector<std::jthread> pool;
  for (int i = 1; i < threads; ++i) pool.emplace_back(work);
  work();
  pool.clear();  // joins
  return hash;
}

std::uint64_t hash_layout(const BlockLayout& layout) {
  std::uint64_t hash = static_cast<std::uint64_t>(layout.block_bytes);
  const auto add = [&hash](std::int64_t offset) { hash = core::scatter(hash ^ static_cast<std::uint64_t>(offset)); };
  for (std::int32_t layer = 0; layer < layout.layers; ++layer) {
    for (std::int32_t head = 0; head < layout.kv_heads; ++head) {
      for (std::int32_t token = 0; token < layout.block_len; ++token) {
        add(layout.k_data(layer, head, token));
        add(layout.v_data(layer, head, token));
        add(layout.k_param(layer, head, token));
        add(layout.v_param(layer, head, token));
      }
    }
  }
  return hash;
}

struct LayoutCase {
  CacheConfig config;
  std::uint64_t hash;
};

// A model's usual shape, every pair of formats, every T, MLA, and counts that are no powers of two.
const LayoutCase kLayoutCases[] = {
    {{.layers = 32, .kv_heads = 8, .format = {KvType::int8, KvType::int8}}, 0x5694446487920b0bu},
    {{.layers = 2, .kv_heads = 3, .head_dim = 96, .block_len = 17}, 0x6b12a8d0341499e0u},
    {{.layers = 2, .kv_heads = 3, .head_dim = 64, .format = {KvType::same, KvType::int8}}, 0xec28cd27703559b7u},
    {{.layers = 2, .kv_heads = 3, .head_dim = 64, .format = {KvType::same, KvType::int4}}, 0xb7d7154e32e98f97u},
    {{.layers = 2, .kv_heads = 3, .head_dim = 192, .format = {KvType::int8, KvType::same}}, 0x83f2af05ff695461u},
    {{.layers = 2, .kv_heads = 3, .head_dim = 128, .format = {KvType::int8, KvType::int4}}, 0x0a223e2f2f2e04b5u},
    {{.layers = 2, .kv_heads = 3, .head_dim = 256, .format = {KvType::int4, KvType::same}}, 0xe71895984f907e5eu},
    {{.layers = 2, .kv_heads = 3, .head_dim = 128, .format = {KvType::int4, KvType::int8}}, 0x6374a458cbfffc1du},
    {{.layers = 2, .kv_heads = 3, .block_len = 16, .dtype = DType::bf16, .format = {KvType::int4, KvType::int4}},
     0xa80cc397d626cc60u},
    {{.layers = 2, .kv_heads = 3, .dtype = DType::f32, .format = {KvType::int8, KvType::int4}}, 0x496e0afaa929c36du},
    {{.layers = 3, .head_dim = 576, .format = {KvType::int8, KvType::int8}, .shared_kv = true}, 0xbfe5fa923c6c6f5cu},
};

std::string describe(const CacheConfig& c) {
  std::string s = "layout_" + std::to_string(c.layers) + "x" + std::to_string(c.kv_heads) + "x" +
                  std::to_string(c.head_dim) + "x" + std::to_string(c.block_len) + "_" + name(c.dtype) + "_" +
                  name(c.format.k) + "_" + name(c.format.v);
  return c.shared_kv ? s + "_shared" : s;
}

}  // namespace

std::vector<CheckResult> check_arithmetic(CheckInputs inputs, int threads) {
  if (threads <= 0) threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::vector<CheckResult> results;
  for (const core::CheckTable& table : core::kCheckTables) {
    const bool full = inputs == CheckInputs::full;
    const std::uint64_t step = full ? 1 : core::check_sample_step(table.inputs);
    results.push_back({table.name, full ? table.hash : table.sample_hash, hash_table(table, step, threads)});
  }
  return results;
}

std::vector<CheckResult> check_layouts() {
  std::vector<CheckResult> results;
  for (const LayoutCase& c : kLayoutCases) {
    results.push_back({describe(c.config), c.hash, hash_layout(make_layout(c.config))});
  }
  return results;
}

}  // namespace pagedkv
