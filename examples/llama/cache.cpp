#include "cache.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "elementwise.h"
#include "pagedkv/error.h"

namespace llama {
namespace {

using pagedkv::DType;
using pagedkv::Error;
using pagedkv::ErrorCode;
using pagedkv::KvType;

constexpr std::int32_t kMaxDecodeLength = 16;  // of pagedkv::cpu::decode
constexpr std::size_t kWorkspaceAlignment = 256;

constexpr std::array<std::pair<std::string_view, KvType>, 5> kSides{{{"f32", KvType::same},
                                                                     {"f16", KvType::same},
                                                                     {"bf16", KvType::same},
                                                                     {"int8", KvType::int8},
                                                                     {"int4", KvType::int4}}};

DType dtype_named(std::string_view text) {
  return text == "f32" ? DType::f32 : text == "f16" ? DType::f16 : DType::bf16;
}

pagedkv::CacheConfig cache_config(const Config& model, const CacheFormat& format, std::int32_t block_len) {
  pagedkv::CacheConfig c;
  c.layers = model.layers;
  c.kv_heads = model.kv_heads;
  c.head_dim = model.head_dim;
  c.block_len = block_len;
  c.dtype = format.dtype;
  c.format = format.kv;
  return c;
}

}  // namespace

CacheFormat parse_format(std::string_view text, DType quant_dtype) {
  const auto refuse = [text] {
    return Error(ErrorCode::invalid_argument, "format", std::string(text),
                 "f32, f16, bf16, int8, int4, or two of them as KEYS/VALUES with at most one of the first three");
  };
  CacheFormat format{quant_dtype, {}};
  bool named = false;
  const auto side = [&](std::string_view word) {
    const auto* found = std::find_if(kSides.begin(), kSides.end(), [&](const auto& s) { return s.first == word; });
    if (found == kSides.end()) throw refuse();
    if (found->second == KvType::same) {
      if (named && format.dtype != dtype_named(word)) throw refuse();
      named = true;
      format.dtype = dtype_named(word);
    }
    return found->second;
  };
  const auto slash = text.find('/');
  format.kv.k = side(text.substr(0, slash));
  format.kv.v = slash == std::string_view::npos ? format.kv.k : side(text.substr(slash + 1));
  return format;
}

std::string label(const CacheFormat& format) {
  const auto side = [&](KvType type) { return std::string(type == KvType::same ? name(format.dtype) : name(type)); };
  if (format.kv.k != format.kv.v) return "K " + side(format.kv.k) + " + V " + side(format.kv.v);
  return format.kv.k == KvType::same ? side(format.kv.k) + " same" : side(format.kv.k);
}

PagedCache::PagedCache(const Config& model, const CacheFormat& format, std::int32_t block_len, std::int32_t blocks,
                       int threads)
    : pool_(make_layout(cache_config(model, format, block_len)), blocks),
      q_heads_(model.q_heads),
      rope_(make_rope_table(model.rope, model.head_dim)),
      exec_{threads} {}

double PagedCache::bytes_per_token() const {
  return static_cast<double>(layout().block_bytes) / layout().block_len;
}

double PagedCache::bits_per_element() const {
  const auto& l = layout();
  return 8.0 * bytes_per_token() / (2.0 * l.layers * l.kv_heads * l.head_dim);
}

Step::Step(PagedCache& cache, std::span<const NewTokens> batch) : cache_(cache) {
  std::vector<std::span<const pagedkv::BlockId>> blocks;
  for (const NewTokens& item : batch) {
    const auto added = static_cast<std::int32_t>(item.tokens.size());
    const auto room = item.sequence->append(added);
    if (!room) {
      throw Error(ErrorCode::invalid_state, "cache", std::to_string(cache.pool_.blocks()) + " blocks, all in use",
                  std::to_string(item.sequence->blocks_for(added)) + " more for this step");
    }
    if (room->copy) {  // the sequence shared its last block with another one
      std::memcpy(cache.pool_.address(room->copy->to), cache.pool_.address(room->copy->from),
                  static_cast<std::size_t>(cache.layout().block_bytes));
    }
    cu_q_.push_back(cu_q_.back() + added);
    cu_k_.push_back(cu_k_.back() + item.sequence->tokens());
    readonly_.push_back(item.sequence->readonly_blocks());
    max_q_len_ = std::max(max_q_len_, added);
    max_k_len_ = std::max(max_k_len_, item.sequence->tokens());
    blocks.push_back(item.sequence->blocks());
  }
  table_ = make_batch_table(cache.pool_, blocks);
}

void Step::attend(std::int32_t layer, float* qkv, float* out) {
  const pagedkv::BlockLayout& layout = cache_.layout();
  const std::int64_t row = std::int64_t{cache_.q_heads_ + 2 * layout.kv_heads} * layout.head_dim;
  const std::int64_t k_offset = std::int64_t{cache_.q_heads_} * layout.head_dim;
  const std::int64_t v_offset = k_offset + std::int64_t{layout.kv_heads} * layout.head_dim;
  const auto batch = static_cast<std::int32_t>(readonly_.size());
  const pagedkv::TokenStrides strides{0, row, row, layout.head_dim};

  pagedkv::ApplyRopeArgs rotate;
  rotate.dtype = DType::f32;
  rotate.heads = cache_.q_heads_;
  rotate.head_dim = layout.head_dim;
  rotate.batch = batch;
  rotate.cu_q = cu_q_.data();
  rotate.cu_k = cu_k_.data();
  rotate.x = rotate.y = qkv;
  rotate.x_strides = rotate.y_strides = strides;
  rotate.rope = cache_.rope_;
  pagedkv::cpu::apply_rope(rotate, cache_.exec_);

  // q, k and v in the type T of the cache.
  const void* typed = qkv;
  if (layout.dtype != DType::f32) {
    cache_.rounded_.resize(static_cast<std::size_t>(rows() * row));
    round_to(layout.dtype, qkv, rows() * row, cache_.rounded_.data());
    typed = cache_.rounded_.data();
  }
  const auto part = [&](std::int64_t offset) {
    return static_cast<const std::byte*>(typed) + offset * dtype_bytes(layout.dtype);
  };

  pagedkv::WriteKvArgs write;
  write.layout = layout;
  write.layer = layer;
  write.table = table_.by_index();
  write.batch = batch;
  write.cu_q = cu_q_.data();
  write.cu_k = cu_k_.data();
  write.k = part(k_offset);
  write.v = part(v_offset);
  write.strides = strides;
  write.rope = cache_.rope_;
  write.readonly_blocks = readonly_.data();
  pagedkv::cpu::write_kv(write, cache_.exec_);

  pagedkv::AttentionArgs attention;
  attention.layout = layout;
  attention.layer = layer;
  attention.table = write.table;
  attention.batch = batch;
  attention.cu_q = cu_q_.data();
  attention.cu_k = cu_k_.data();
  attention.max_total_q = rows();
  attention.max_q_len = max_q_len_;
  attention.max_k_len = max_k_len_;
  attention.q_heads = cache_.q_heads_;
  attention.q = part(0);
  attention.q_strides = strides;
  attention.o = out;
  attention.o_strides = pagedkv::packed_strides(cache_.q_heads_, layout.head_dim);
  attention.o_is_f32 = true;

  const bool decodes = max_q_len_ <= kMaxDecodeLength;
  std::size_t bytes = decodes ? pagedkv::cpu::decode_workspace_bytes(attention, cache_.exec_)
                              : pagedkv::cpu::prefill_workspace_bytes(attention, cache_.exec_);
  std::size_t space = bytes + kWorkspaceAlignment;
  if (cache_.workspace_.size() < space) cache_.workspace_.resize(space);
  void* data = cache_.workspace_.data();
  space = cache_.workspace_.size();
  const pagedkv::Workspace workspace{std::align(kWorkspaceAlignment, bytes, data, space), bytes};
  if (decodes) {
    pagedkv::cpu::decode(attention, workspace, cache_.exec_);
  } else {
    pagedkv::cpu::prefill(attention, workspace, cache_.exec_);
  }
}

}  // namespace llama
