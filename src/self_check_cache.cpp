#include <array>
#include <cstring>

#include "pagedkv/cache_config.h"
#include "pagedkv/core/check_tables.h"
#include "pagedkv/cpu.h"
#include "pagedkv/self_check.h"

namespace pagedkv {
namespace {

constexpr std::int32_t kHeads = 2;
constexpr std::int32_t kBlockLen = 16;
constexpr std::int32_t kBlocks = 9;
// Two sequences. The first has 21 tokens, 5 of them from before; the second is all new and ends on a block's end.
constexpr std::array<std::int32_t, 3> kCuQ = {0, 16, 64};
constexpr std::array<std::int32_t, 3> kCuK = {0, 21, 69};
constexpr std::array<std::int32_t, 3> kCuBlocks = {0, 2, 5};
constexpr std::array<std::int32_t, 5> kIndices = {7, 0, 4, 8, 2};
constexpr std::int32_t kTokens = kCuQ[2];

std::uint64_t hash_bytes(std::uint64_t hash, const std::vector<std::byte>& bytes) {
  for (const std::byte b : bytes) hash = core::scatter(hash ^ static_cast<std::uint64_t>(b));
  return hash;
}

/// Rows of eight kinds: five of ordinary values in different ranges, a constant one, one of values from everywhere in
/// the range of T, one with an infinity.
template <class T>
std::vector<std::byte> make_rows(std::int32_t rows, std::int32_t head_dim, std::uint64_t seed) {
  std::vector<T> values;
  for (std::int32_t row = 0; row < rows; ++row) {
    const int kind = row % 8;
    for (std::int32_t d = 0; d < head_dim; ++d) {
      const std::uint64_t r = core::scatter(seed + (static_cast<std::uint64_t>(row) << 20) + static_cast<unsigned>(d));
      const auto u = static_cast<std::int32_t>(r % 2049) - 1024;
      constexpr std::array<float, 5> kScales = {1.0F / 512, 1.0F / 32, 1.0F / 4, 1.0F / 1048576, 7.0F};
      float x = static_cast<float>(u) * kScales[static_cast<std::size_t>(kind % 5)];
      if (kind == 5) x = 0.3F;
      if (kind == 6) x = core::bits_as<float>((static_cast<std::uint32_t>(r >> 32) & 0x9fffffffu) | 0x20000000u);
      if (kind == 7 && d == head_dim / 2) x = core::bits_as<float>(0x7f800000u);
      values.push_back(core::from_float<T>(x));
    }
  }
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

struct CacheCase {
  DType dtype;
  KvFormat format;
  RopeType rope;
  RopePairs pairs;
  std::int32_t head_dim;
  std::uint64_t hash;
};

std::string describe(const CacheCase& c) {
  std::string s = std::string("cache_") + name(c.dtype) + "_" + name(c.format.k) + "_" + name(c.format.v) + "_" +
                  std::to_string(c.head_dim);
  if (c.rope != RopeType::none) s += c.pairs == RopePairs::interleaved ? "_interleaved" : "_half_split";
  return s;
}

template <class T>
std::uint64_t hash_cache(const CacheCase& c) {
  const BlockLayout layout = make_layout({.layers = 1,
                                          .kv_heads = kHeads,
                                          .head_dim = c.head_dim,
                                          .block_len = kBlockLen,
                                          .dtype = c.dtype,
                                          .format = c.format});
  const std::vector<std::byte> k = make_rows<T>(kTokens * kHeads, c.head_dim, 1);
  const std::vector<std::byte> v = make_rows<T>(kTokens * kHeads, c.head_dim, std::uint64_t{1} << 60);
  const std::vector<std::byte> bias = make_rows<T>(kHeads, c.head_dim, std::uint64_t{1} << 61);
  const auto slab_bytes = static_cast<std::size_t>(kBlocks * layout.block_bytes);
  std::vector<std::byte> storage(slab_bytes + 16, std::byte{0x5a});
  char* slab = reinterpret_cast<char*>(storage.data());
  slab += (16 - reinterpret_cast<std::uintptr_t>(slab) % 16) % 16;
  // Sixteen-byte alignment of the inputs comes from operator new.
  WriteKvArgs write{
      .layout = layout,
      .table = {.indices = kIndices.data(), .slab = slab, .slab_blocks = kBlocks, .cu_blocks = kCuBlocks.data()},
      .batch = 2,
      .cu_q = kCuQ.data(),
      .cu_k = kCuK.data(),
      .k = k.data(),
      .v = v.data(),
      .strides = packed_strides(kHeads, c.head_dim),
      .k_bias = bias.data(),
      .v_bias = bias.data()};
  write.rope =
      make_rope_table({.type = c.rope, .pairs = c.pairs, .dim = c.rope == RopeType::none ? 0 : 64}, c.head_dim);
  cpu::write_kv(write);

  // The cache holds bytes for the history too: the pattern that was there.
  const std::size_t rows_bytes = static_cast<std::size_t>(kCuK[2] * kHeads * c.head_dim) * sizeof(T);
  std::vector<std::byte> flat_k(rows_bytes);
  std::vector<std::byte> flat_v(rows_bytes);
  cpu::flatten_kv({.layout = layout,
                   .table = write.table,
                   .batch = 2,
                   .cu_k = kCuK.data(),
                   .k = flat_k.data(),
                   .v = flat_v.data(),
                   .strides = write.strides});
  const std::vector<std::byte> blocks(reinterpret_cast<std::byte*>(slab),
                                      reinterpret_cast<std::byte*>(slab) + slab_bytes);
  return hash_bytes(hash_bytes(hash_bytes(0, blocks), flat_k), flat_v);
}

constexpr KvFormat kSame = {KvType::same, KvType::same};
constexpr KvFormat kInt8 = {KvType::int8, KvType::int8};
constexpr KvFormat kInt4 = {KvType::int4, KvType::int4};
constexpr KvFormat kInt8Int4 = {KvType::int8, KvType::int4};

constexpr CacheCase kCacheCases[] = {
    {DType::f32, kSame, RopeType::standard, RopePairs::interleaved, 128, 0xd70d9b74f6ed103eu},
    {DType::f32, kInt8, RopeType::standard, RopePairs::half_split, 64, 0x31389d422d50ccbdu},
    {DType::f32, kInt4, RopeType::none, RopePairs::interleaved, 96, 0xcffa262bc4614f7fu},
    {DType::f16, kSame, RopeType::none, RopePairs::interleaved, 64, 0x7399aff91d64a5a4u},
    {DType::f16, kInt8, RopeType::standard, RopePairs::interleaved, 128, 0xc63e048cd08a0c05u},
    {DType::f16, kInt4, RopeType::standard, RopePairs::half_split, 128, 0xf3ea5c8e05ae786au},
    {DType::f16, kInt8Int4, RopeType::standard, RopePairs::interleaved, 192, 0xad0647355490ac6bu},
    {DType::bf16, kSame, RopeType::standard, RopePairs::half_split, 256, 0xefb8b8646c13b8bbu},
    {DType::bf16, kInt8, RopeType::standard, RopePairs::half_split, 96, 0xd1d5aef73d8972deu},
    {DType::bf16, kInt4, RopeType::standard, RopePairs::interleaved, 64, 0xd723ec32965e7f3du},
    {DType::bf16, kInt8Int4, RopeType::none, RopePairs::interleaved, 128, 0x8990e5327a5860c4u},
};

}  // namespace

std::vector<CheckResult> check_cpu_cache_bytes() {
  std::vector<CheckResult> results;
  for (const CacheCase& c : kCacheCases) {
    const std::uint64_t hash = c.dtype == DType::f32   ? hash_cache<float>(c)
                               : c.dtype == DType::f16 ? hash_cache<half_t>(c)
                                                       : hash_cache<bfloat16_t>(c);
    results.push_back({describe(c), c.hash, hash});
  }
  return results;
}

}  // namespace pagedkv
