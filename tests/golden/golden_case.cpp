#include "golden/golden_case.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>

#include "pagedkv/cache_config.h"

namespace golden {

std::string data_folder() {
  const char* folder = std::getenv("PAGEDKV_GOLDEN_DATA");
  return folder != nullptr ? folder : PAGEDKV_GOLDEN_DATA;
}

namespace {

const std::string kFolder = data_folder();

pagedkv::RopeParams rope_params(const nlohmann::json& j) {
  pagedkv::RopeParams p;
  const int type = j.at("type");
  if (type == 0) return p;
  if (type != 1 || j.at("mrope_mode") != 0) throw std::runtime_error("rope of a kind that no recorded case had so far");
  p.type = pagedkv::RopeType::standard;
  p.dim = j.at("dim");
  // scale_factor is -log2(base) / dim in float32; the recorded bases are whole numbers.
  p.base = std::round(std::exp2(-j.at("scale_factor").get<double>() * p.dim));
  return p;
}

CacheCase cache_case(const nlohmann::json& j) {
  CacheCase c;
  c.name = j.at("name");
  c.layout = pagedkv::make_layout({.layers = j.at("layers"),
                                   .kv_heads = j.at("kv_heads"),
                                   .head_dim = j.at("head_dim"),
                                   .block_len = j.at("block_len"),
                                   .dtype = j.at("dtype") == "f16" ? pagedkv::DType::f16 : pagedkv::DType::bf16,
                                   .format = pagedkv::format_from_quant_policy(j.at("quant_policy"))});
  if (c.layout.layer_bytes != j.at("layer_bytes")) throw std::runtime_error(c.name + ": layer_bytes differ");
  c.layer = j.at("layer");
  c.q_len = j.at("q_len").get<std::vector<std::int32_t>>();
  c.history = j.at("history").get<std::vector<std::int32_t>>();
  c.cu_block = j.at("cu_block").get<std::vector<std::int32_t>>();
  c.readonly_blocks = j.at("readonly_blocks").get<std::vector<std::int32_t>>();
  c.cp = {j.at("rank"), j.at("cp_size"), 1};
  c.rope = rope_params(j.at("rope"));
  c.has_flat = j.at("flat") == 1;
  c.inputs = j.at("inputs");
  c.degenerate = c.inputs.find("_m1_") != std::string::npos;
  c.has_bias = j.at("bias") == 1;
  return c;
}

}  // namespace

std::vector<std::int32_t> CacheCase::k_len() const {
  std::vector<std::int32_t> k(q_len.size());
  std::transform(q_len.begin(), q_len.end(), history.begin(), k.begin(), std::plus<>());
  return k;
}

support::NpyArray CacheCase::file(const std::string& suffix) const {
  return support::read_npy(kFolder + "/" + name + "_r" + std::to_string(cp.rank) + "_" + suffix + ".npy");
}

support::NpyArray CacheCase::input(const std::string& suffix) const {
  return support::read_npy(kFolder + "/" + inputs + "_" + suffix + ".npy");
}

std::vector<CacheCase> cache_cases() {
  std::ifstream file(kFolder + "/manifest.jsonl");
  if (!file) throw std::runtime_error(kFolder + "/manifest.jsonl cannot be read");
  std::vector<CacheCase> cases;
  for (std::string line; std::getline(file, line);) {
    const auto j = nlohmann::json::parse(line);
    if (!j.contains("kind")) cases.push_back(cache_case(j));
  }
  return cases;
}

std::vector<std::int32_t> cumulative(const std::vector<std::int32_t>& lengths) {
  std::vector<std::int32_t> cu(lengths.size() + 1, 0);
  std::partial_sum(lengths.begin(), lengths.end(), cu.begin() + 1);
  return cu;
}

Cache::Cache(const CacheCase& c) : case_(c) {
  const auto blocks = static_cast<std::size_t>(c.cu_block.back());
  const auto block_bytes = static_cast<std::size_t>(c.layout.block_bytes);
  memory_.assign(blocks * block_bytes + 64, kPoison);
  void* p = memory_.data();
  std::size_t space = memory_.size();
  slab_ = static_cast<char*>(std::align(64, blocks * block_bytes, p, space));
  index_.resize(blocks);
  for (std::size_t i = 0; i < blocks; ++i) {
    index_[i] = static_cast<std::int32_t>(i % 2 == 0 ? i / 2 : blocks - 1 - i / 2);
  }
}

pagedkv::BlockTable Cache::table() const {
  return {.indices = index_.data(),
          .slab = slab_,
          .slab_blocks = static_cast<std::int32_t>(index_.size()),
          .cu_blocks = case_.cu_block.data()};
}

char* Cache::layer_of_block(std::int32_t logical) const {
  return slab_ + index_[static_cast<std::size_t>(logical)] * case_.layout.block_bytes +
         case_.layout.layer_offset(case_.layer);
}

std::vector<char> Cache::layer_bytes() const {
  std::vector<char> bytes;
  for (std::int32_t i = 0; i < case_.cu_block.back(); ++i) {
    bytes.insert(bytes.end(), layer_of_block(i), layer_of_block(i) + case_.layout.layer_bytes);
  }
  return bytes;
}

void Cache::set_layer_bytes(const std::vector<char>& bytes) {
  for (std::int32_t i = 0; i < case_.cu_block.back(); ++i) {
    std::copy_n(bytes.data() + i * case_.layout.layer_bytes, case_.layout.layer_bytes, layer_of_block(i));
  }
}

bool Cache::other_layers_untouched() const {
  for (std::int32_t i = 0; i < case_.cu_block.back(); ++i) {
    const char* block = slab_ + i * case_.layout.block_bytes;
    for (std::int64_t b = 0; b < case_.layout.block_bytes; ++b) {
      if (b / case_.layout.layer_bytes != case_.layer && block[b] != kPoison) return false;
    }
  }
  return true;
}

void write_case(const CacheCase& c, const Cache& cache) {
  const std::int64_t dim = c.layout.head_dim;
  const std::int64_t heads = c.layout.kv_heads;
  const auto write = [&](const support::NpyArray& x, const std::vector<std::int32_t>& q_len,
                         const std::vector<std::int32_t>& k_len, bool is_new) {
    const auto cu_q = cumulative(q_len);
    const auto cu_k = cumulative(k_len);
    const support::NpyArray k_bias = c.input("kbias");
    const support::NpyArray v_bias = c.input("vbias");
    pagedkv::WriteKvArgs a{.layout = c.layout, .layer = c.layer, .table = cache.table(), .batch = c.batch()};
    a.cu_q = cu_q.data();
    a.cu_k = cu_k.data();
    a.k = x.bytes.data();
    a.v = x.bytes.data() + heads * dim * 2;
    a.strides = pagedkv::packed_strides(2 * heads, dim);
    a.cp = c.cp;
    if (is_new && c.has_bias) {
      a.k_bias = k_bias.bytes.data();
      a.v_bias = v_bias.bytes.data();
    }
    if (is_new) a.rope = pagedkv::make_rope_table(c.rope, c.layout.head_dim);
    if (!c.readonly_blocks.empty()) a.readonly_blocks = c.readonly_blocks.data();
    cache_backend.write_kv(a);
  };
  const support::NpyArray history = c.input("hist");
  if (history.count() > 0) write(history, c.history, c.history, false);
  write(c.input("new"), c.q_len, c.k_len(), true);
}

std::vector<char> flatten_case(const CacheCase& c, const Cache& cache) {
  const auto cu_k = cumulative(c.k_len());
  const std::int64_t dim = c.layout.head_dim;
  const std::int64_t sum_k = cu_k.back();
  std::vector<char> flat(static_cast<std::size_t>(c.layout.kv_heads * 2 * sum_k * dim * 2), kPoison);
  pagedkv::FlattenKvArgs a{.layout = c.layout, .layer = c.layer, .table = cache.table(), .batch = c.batch()};
  a.cu_k = cu_k.data();
  a.k = flat.data();
  a.v = flat.data() + sum_k * dim * 2;
  a.strides = {0, dim, dim, 2 * sum_k * dim};
  a.cp = c.cp;
  cache_backend.flatten_kv(a);
  return flat;
}

}  // namespace golden
