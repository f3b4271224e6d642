#include "ops/fused_case.h"

#include <algorithm>
#include <random>
#include <sstream>

#include "support/convert.h"

namespace ops {
namespace {

constexpr char kPoison = static_cast<char>(0xcd);

std::int64_t elements(const Case& c) {
  return std::int64_t{c.spec().total_q()} * c.layout().kv_heads * c.layout().head_dim;
}

/// Rows of K and V, as many elements as both have, and a gap of 8 behind each head where `strided`.
std::int64_t head_stride(const FusedSpec& s) {
  return s.base.config.head_dim + (s.strided ? 8 : 0);
}

void fill(support::Tensor& t, std::int64_t count, std::uint32_t seed, int row, std::uint32_t spoiled) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  double constant = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i % row == 0) constant = normal(random);
    double x = normal(random);
    if (spoiled == 1) x = constant;
    if (spoiled == 2) x *= i % 3 == 0 ? 1e-7 : i / row % 2 == 0 ? 2e3 : 1;
    t.set(i, x);
  }
}

}  // namespace

std::string describe(const FusedSpec& s) {
  std::ostringstream out;
  out << describe(s.base) << " write " << s.write << " bias " << s.k_bias << s.v_bias << s.q_bias << " rotate_q "
      << s.rotate_q << " rope " << static_cast<int>(s.rope) << " dim " << s.rope_dim << " pairs "
      << static_cast<int>(s.pairs) << " base " << s.own_base << " mrope " << static_cast<int>(s.mrope) << " readonly "
      << s.readonly_blocks << " strided " << s.strided << " spoiled " << s.spoiled;
  return out.str();
}

void set_rope(FusedSpec& s, int i) {
  constexpr pagedkv::RopeType kTypes[] = {pagedkv::RopeType::standard, pagedkv::RopeType::linear,
                                          pagedkv::RopeType::yarn, pagedkv::RopeType::llama3,
                                          pagedkv::RopeType::dynamic};
  s.rope = kTypes[i % 5];
  s.own_base = s.rope == pagedkv::RopeType::dynamic;
  s.pairs = i % 2 == 0 ? pagedkv::RopePairs::interleaved : pagedkv::RopePairs::half_split;
  const int most = std::min(s.base.config.head_dim, 256);
  s.rope_dim = i % 3 == 0 ? most : i % 3 == 1 ? most / 2 : 16 + 16 * (i % 2);
  s.mrope = i % 4 == 1   ? pagedkv::MropeMode::chunked
            : i % 4 == 2 ? pagedkv::MropeMode::interleaved
                         : pagedkv::MropeMode::none;
}

void set_all(FusedSpec& s, int i) {
  set_rope(s, i);
  s.k_bias = (i + 1) % 2 == 0;
  s.v_bias = (i + 1) % 3 == 0;
  s.q_bias = (i + 1) % 4 == 0;
  s.rotate_q = (i + 1) % 3 != 0;
  s.strided = (i + 1) % 5 == 0;
  s.base.pointer_table = (i + 1) % 2 == 0;
}

std::vector<char> table_blocks(const pagedkv::AttentionArgs& a) {
  std::vector<char> bytes;
  for (std::int32_t i = 0; i < a.table.cu_blocks[a.batch]; ++i) {
    const char* block =
        a.table.pointers != nullptr ? a.table.pointers[i] : a.table.slab + a.table.indices[i] * a.layout.block_bytes;
    bytes.insert(bytes.end(), block, block + a.layout.block_bytes);
  }
  return bytes;
}

FusedCase::FusedCase(const FusedSpec& spec)
    : spec_(spec),
      case_(spec.base),
      kv_(support::to_oracle(spec.base.config.dtype),
          2 * elements(case_) / spec.base.config.head_dim * head_stride(spec)),
      bias_(support::to_oracle(spec.base.config.dtype),
            2 * std::int64_t{spec.base.config.kv_heads} * spec.base.config.head_dim),
      q_bias_(support::to_oracle(spec.base.config.dtype), std::int64_t{spec.base.q_heads} * spec.base.config.head_dim),
      q_(support::to_oracle(spec.base.config.dtype),
         std::int64_t{spec.base.total_q()} * spec.base.q_heads * spec.base.config.head_dim) {
  const int dim = spec.base.config.head_dim;
  fill(kv_, 2 * elements(case_) / dim * head_stride(spec), 1, static_cast<int>(head_stride(spec)), spec.spoiled);
  fill(bias_, 2 * std::int64_t{spec.base.config.kv_heads} * dim, 2, dim, 0);
  fill(q_bias_, std::int64_t{spec.base.q_heads} * dim, 3, dim, 0);
  const auto batch = spec.base.lengths.size();
  readonly_.assign(batch, spec.readonly_blocks);
  std::mt19937 random(9);
  for (std::size_t b = 0; b < batch; ++b) {
    base_.push_back(1000.0F + 500.0F * static_cast<float>(b));
    offsets_.push_back(static_cast<std::int32_t>(ids_.size() / 3));
    lengths_.push_back(spec.base.lengths[b].q_len / 2 + static_cast<int>(b % 2));
    delta_.push_back(static_cast<std::int32_t>(b) * 7 - 3);
    for (int i = 0; i < 3 * lengths_.back(); ++i) ids_.push_back(static_cast<std::int32_t>(random() % 5000));
  }
  pagedkv::RopeParams p;
  p.type = spec.rope;
  p.pairs = spec.pairs;
  p.dim = spec.rope_dim;
  p.factor = 4;
  p.original_max_position = 2048;
  p.dynamic_base = spec.own_base ? base_.data() : nullptr;
  if (spec.rope == pagedkv::RopeType::none) return;
  p.mrope = spec.mrope;
  if (spec.mrope != pagedkv::MropeMode::none) {
    const int pairs = spec.rope_dim / 2;
    p.mrope_section[1] = p.mrope_section[2] = pairs / 4;
    p.mrope_section[0] = pairs - 2 * (pairs / 4);
    p.mrope_position_ids = ids_.data();
    p.mrope_offsets = offsets_.data();
    p.mrope_length = lengths_.data();
    p.mrope_delta = delta_.data();
  }
  rope_ = pagedkv::make_rope_table(p, dim);
}

pagedkv::AttentionArgs FusedCase::fused() {
  pagedkv::AttentionArgs a = case_.args();
  if (spec_.write) {
    const pagedkv::WriteKvArgs w = write_args();
    a.fuse_write = {w.k, w.v, w.strides, w.k_bias, w.v_bias, w.readonly_blocks};
  }
  a.rope = rope_;
  a.rotate_q = spec_.rotate_q;
  if (spec_.q_bias) a.q_bias = q_bias_.at(0);
  return a;
}

pagedkv::WriteKvArgs FusedCase::write_args() {
  const pagedkv::AttentionArgs a = case_.args();
  pagedkv::WriteKvArgs w;
  w.layout = a.layout;
  w.layer = a.layer;
  w.table = a.table;
  w.batch = a.batch;
  w.cu_q = a.cu_q;
  w.cu_k = a.cu_k;
  w.max_total_q = a.max_total_q;
  const std::int64_t head = head_stride(spec_);
  w.strides = pagedkv::packed_strides(2 * a.layout.kv_heads, head);  // a token's keys, then its values
  w.k = kv_.at(0);
  w.v = a.layout.shared_kv ? nullptr : kv_.at(a.layout.kv_heads * head);
  if (spec_.k_bias) w.k_bias = bias_.at(0);
  if (spec_.v_bias) w.v_bias = bias_.at(std::int64_t{a.layout.kv_heads} * a.layout.head_dim);
  w.rope = rope_;
  w.cp = a.cp;
  if (spec_.readonly_blocks > 0) w.readonly_blocks = readonly_.data();
  return w;
}

pagedkv::AttentionArgs FusedCase::rest() {
  pagedkv::AttentionArgs a = case_.args();
  if (!spec_.rotate_q && !spec_.q_bias) return a;
  pagedkv::ApplyRopeArgs r;
  r.dtype = a.layout.dtype;
  r.heads = a.q_heads;
  r.head_dim = a.layout.head_dim;
  r.batch = a.batch;
  r.cu_q = a.cu_q;
  r.cu_k = a.cu_k;
  r.x = a.q;
  r.x_strides = a.q_strides;
  r.y = q_.at(0);
  r.y_strides = pagedkv::packed_strides(a.q_heads, a.layout.head_dim);
  if (spec_.q_bias) r.bias = q_bias_.at(0);
  if (spec_.rotate_q) r.rope = rope_;
  pagedkv::cpu::apply_rope(r);
  a.q = r.y;
  a.q_strides = r.y_strides;
  return a;
}

void FusedCase::reset() {
  if (!spec_.write) return;
  const pagedkv::AttentionArgs a = case_.args();
  const pagedkv::BlockLayout& l = a.layout;
  const pagedkv::core::Ownership owner(a.cp);
  for (std::int32_t b = 0; b < a.batch; ++b) {
    const std::int32_t k_len = a.cu_k[b + 1] - a.cu_k[b];
    const std::int32_t first =
        std::max(owner.count(k_len - (a.cu_q[b + 1] - a.cu_q[b])), spec_.readonly_blocks * l.block_len);
    for (std::int32_t i = first; i < owner.count(k_len); ++i) {
      char* block = case_.block_of(b, i);
      for (std::int32_t h = 0; h < l.kv_heads; ++h) {
        const std::int32_t row = i % l.block_len;
        std::fill_n(block + l.k_data(a.layer, h, row), l.k_row_bytes, kPoison);
        std::fill_n(block + l.k_param(a.layer, h, row), l.k_param_bytes, kPoison);
        if (l.shared_kv) continue;
        std::fill_n(block + l.v_data(a.layer, h, row), l.v_row_bytes, kPoison);
        std::fill_n(block + l.v_param(a.layer, h, row), l.v_param_bytes, kPoison);
      }
    }
  }
}

void FusedCase::write() {
  pagedkv::cpu::write_kv(write_args());
}

}  // namespace ops
