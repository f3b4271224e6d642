#include "common/layout_check.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/enum_check.h"
#include "common/format.h"

namespace pagedkv::common {
namespace {

/// Smallest number of rows of `row_bytes` that fill whole 16-byte units.
std::int64_t aligned_rows(std::int64_t row_bytes) {
  return 16 / std::gcd(std::int64_t{16}, row_bytes);
}

}  // namespace

void check_cache_config(std::string_view owner, const CacheConfig& c) {
  check_enum(owner, "dtype", c.dtype);
  check_enum(owner, "format.k", c.format.k);
  check_enum(owner, "format.v", c.format.v);
  check_enum(owner, "layout", c.layout);
  check_range(owner, "layers", c.layers, 1, 65536);
  check_range(owner, "kv_heads", c.kv_heads, 1, 65536);
  check_range(owner, "head_dim", c.head_dim, 16, 1024);
  check_multiple(owner, "head_dim", c.head_dim, 16);
  check_range(owner, "block_len", c.block_len, 1, 65536);
  if (c.shared_kv && c.format.k != c.format.v) {
    reject(owner, "format.v", name(c.format.v),
           formatted("{}, the type of the keys, because shared_kv stores one row for both", name(c.format.k)));
  }
  const BlockLayout l =
      core::compute_layout(c.dtype, c.format, c.layers, c.kv_heads, c.head_dim, c.block_len, c.shared_kv);
  // A region is block_len rows long and starts where another one ends.
  const std::int64_t unit = std::max({aligned_rows(l.k_row_bytes), aligned_rows(l.v_row_bytes),
                                      aligned_rows(l.k_param_bytes), aligned_rows(l.v_param_bytes)});
  if (c.block_len % unit != 0) {
    reject(owner, "block_len", c.block_len,
           formatted("a multiple of {}, so that each region of this format starts 16-byte aligned", unit));
  }
}

void check_layout(std::string_view owner, const BlockLayout& l) {
  check_cache_config(owner, {.layers = l.layers,
                             .kv_heads = l.kv_heads,
                             .head_dim = l.head_dim,
                             .block_len = l.block_len,
                             .dtype = l.dtype,
                             .format = l.format,
                             .layout = l.kind,
                             .shared_kv = l.shared_kv});
  const BlockLayout good =
      core::compute_layout(l.dtype, l.format, l.layers, l.kv_heads, l.head_dim, l.block_len, l.shared_kv);
  if (l == good) return;
  const std::array<std::pair<const char*, std::pair<std::int64_t, std::int64_t>>, 9> derived{{
      {"k_row_bytes", {l.k_row_bytes, good.k_row_bytes}},
      {"v_row_bytes", {l.v_row_bytes, good.v_row_bytes}},
      {"k_param_bytes", {l.k_param_bytes, good.k_param_bytes}},
      {"v_param_bytes", {l.v_param_bytes, good.v_param_bytes}},
      {"head_data_bytes", {l.head_data_bytes, good.head_data_bytes}},
      {"head_param_bytes", {l.head_param_bytes, good.head_param_bytes}},
      {"param_offset", {l.param_offset, good.param_offset}},
      {"layer_bytes", {l.layer_bytes, good.layer_bytes}},
      {"block_bytes", {l.block_bytes, good.block_bytes}},
  }};
  for (const auto& [field, values] : derived) {
    if (values.first != values.second) {
      reject(owner, field, values.first, formatted("{}, as make_layout() computes it", values.second));
    }
  }
}

}  // namespace pagedkv::common
