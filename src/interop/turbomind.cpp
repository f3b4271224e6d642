#include "pagedkv/interop/turbomind.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "pagedkv/cache_config.h"

namespace pagedkv::turbomind {
namespace {

constexpr std::string_view kRope = "RopeKernelParam";

DType compute_type(DataType t) {
  switch (t) {
    case DataType::TYPE_FP16:
      return DType::f16;
    case DataType::TYPE_BF16:
      return DType::bf16;
    case DataType::TYPE_FP32:
      return DType::f32;
    default:
      common::reject("get_cache_block_size", "dtype", static_cast<int>(t), "TYPE_FP16, TYPE_BF16 or TYPE_FP32");
  }
}

KvType stored_type(DataType dtype, DataType kvtype) {
  switch (kvtype) {
    case DataType::TYPE_INT8:
    case DataType::TYPE_UINT8:
      return KvType::int8;
    case DataType::TYPE_INT4:
    case DataType::TYPE_UINT4:
      return KvType::int4;
    default:
      if (kvtype == dtype) return KvType::same;
      common::reject("get_cache_block_size", "kvtype", static_cast<int>(kvtype),
                     "dtype, TYPE_INT8, TYPE_UINT8, TYPE_INT4 or TYPE_UINT4");
  }
}

double clamp01(double x) {
  return std::clamp(x, 0.0, 1.0);
}

/// Radians per position of the pair that starts at channel d.
double frequency(const RopeKernelParam& p, int d) {
  const double f = core::detail::exp2_det(d * static_cast<double>(p.scale_factor));
  const double inv = static_cast<double>(p.inv_factor);
  switch (p.type) {
    case RopeType::kYarn: {
      const double ramp = clamp01(d * static_cast<double>(p.yarn.ramp_inv_factor_div_2) -
                                  static_cast<double>(p.yarn.ramp_inv_factor_mul_min));
      return f - f * ramp * (1 - inv);
    }
    case RopeType::kLlama3: {
      const double smooth = clamp01(static_cast<double>(p.llama3.alpha) * f - static_cast<double>(p.llama3.beta));
      return (1 - smooth) * f * inv + smooth * f;
    }
    default:
      return f * inv;
  }
}

void check_finite(std::string_view field, float value) {
  if (!std::isfinite(value)) common::reject(kRope, field, value, "a finite number");
}

}  // namespace

std::size_t get_cache_block_size(DataType dtype, DataType kvtype, int layer_num, int head_num, int head_dim,
                                 int block_seq_len) {
  CacheConfig config;
  config.layers = layer_num;
  config.kv_heads = head_num;
  config.head_dim = head_dim;
  config.block_len = block_seq_len;
  config.dtype = compute_type(dtype);
  const KvType stored = stored_type(dtype, kvtype);
  config.format = {stored, stored};
  config.shared_kv = head_dim == block::kMlaHeadDim;
  return static_cast<std::size_t>(make_layout(config).block_bytes);
}

core::RopeTable make_rope_table(const RopeKernelParam& p, int head_dim) {
  core::RopeTable table;
  if (p.type == RopeType::kNull) return table;
  if (p.type > RopeType::kLlama3) {
    common::reject(kRope, "type", static_cast<int>(p.type), "kNull, kDefault, kLinear, kDynamic, kYarn or kLlama3");
  }
  common::check_range(kRope, "dim", p.dim, 8, std::min(head_dim, 2 * core::kMaxRopePairs));
  common::check_multiple(kRope, "dim", p.dim, 8);
  table.dim = p.dim;
  if (p.type == RopeType::kDynamic) {
    common::check_pointer(kRope, "base", p.base, alignof(float));
    table.base = p.base;
  } else {
    check_finite("scale_factor", p.scale_factor);
    check_finite("inv_factor", p.inv_factor);
    for (int i = 0; i < p.dim / 2; ++i) {
      const double radians = frequency(p, 2 * i);
      if (!(radians >= 0 && radians < 1e6)) {
        common::reject(kRope, "scale_factor", p.scale_factor, "factors that give every pair a frequency of 0 .. 1e6");
      }
      table.turn[i] = core::turn_fraction(radians);
    }
  }
  if (p.type == RopeType::kYarn) {
    check_finite("yarn.attention_factor", p.yarn.attention_factor);
    table.attention_factor = p.yarn.attention_factor;
  }
  table.mrope = p.mrope.mode;
  std::copy_n(p.mrope.section, 3, table.mrope_section);
  table.mrope_position_ids = p.mrope.position_ids;
  table.mrope_offsets = p.mrope.offsets;
  table.mrope_length = p.mrope.length;
  table.mrope_delta = p.mrope.position_delta;
  return table;
}

}  // namespace pagedkv::turbomind
