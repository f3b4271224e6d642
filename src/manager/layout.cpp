#include <limits>
#include <string_view>

#include "common/format.h"
#include "common/layout_check.h"
#include "pagedkv/cache_config.h"
#include "pagedkv/error.h"

namespace pagedkv {
namespace {

// The largest configuration that passes the checks. Signed overflow is an error in a constant expression, so this also
// shows that no size or offset of an accepted layout overflows.
constexpr BlockLayout kLargest = core::compute_layout(DType::f32, {}, 65536, 65536, 1024, 65536, false);
static_assert(kLargest.block_bytes <= std::numeric_limits<std::int64_t>::max() / 2);

}  // namespace

BlockLayout make_layout(const CacheConfig& config) {
  common::check_cache_config("CacheConfig", config);
  return core::compute_layout(config.dtype, config.format, config.layers, config.kv_heads, config.head_dim,
                              config.block_len, config.shared_kv);
}

KvFormat format_from_quant_policy(int quant_policy) {
  switch (quant_policy) {
    case 0:
      return {KvType::same, KvType::same};
    case 4:
      return {KvType::int4, KvType::int4};
    case 8:
      return {KvType::int8, KvType::int8};
    default:
      throw Error(ErrorCode::invalid_argument, "quant_policy", common::formatted("{}", quant_policy), "0, 4 or 8");
  }
}

std::string to_string(const BlockLayout& l) {
  std::string s = common::formatted("{} block of {} tokens: {} layers, {} KV heads, head_dim {}, {}, ", name(l.kind),
                                    l.block_len, l.layers, l.kv_heads, l.head_dim, name(l.dtype));
  s += l.shared_kv ? common::formatted("keys and values shared as {}\n", name(l.format.k))
                   : common::formatted("keys {}, values {}\n", name(l.format.k), name(l.format.v));
  s += common::formatted(
      "byte of layer l, head h, token t = first byte + l * {} + h * head stride + t * token stride\n", l.layer_bytes);
  const auto row = [&](std::string_view region, std::int64_t first, std::int64_t head, std::int32_t token) {
    s += common::formatted("{:<8}  {:>12}  {:>12}  {:>12}  {:>15}\n", region, first, head, token,
                           std::int64_t{l.kv_heads} * l.block_len * token);
  };
  s += common::formatted("{:<8}  {:>12}  {:>12}  {:>12}  {:>15}\n", "region", "first byte", "head stride",
                         "token stride", "bytes per layer");
  row(l.shared_kv ? "KV data" : "K data", l.k_data(0, 0, 0), l.head_data_bytes, l.k_row_bytes);
  if (!l.shared_kv) row("V data", l.v_data(0, 0, 0), l.head_data_bytes, l.v_row_bytes);
  if (l.k_param_bytes > 0) {
    row(l.shared_kv ? "KV param" : "K param", l.k_param(0, 0, 0), l.head_param_bytes, l.k_param_bytes);
  }
  if (!l.shared_kv && l.v_param_bytes > 0) row("V param", l.v_param(0, 0, 0), l.head_param_bytes, l.v_param_bytes);
  s += common::formatted("{:<50}  {:>15}\n", "layer", l.layer_bytes);
  s += common::formatted("{:<50}  {:>15}\n", "block", l.block_bytes);
  return s;
}

}  // namespace pagedkv
