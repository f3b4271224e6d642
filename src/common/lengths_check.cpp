#include "common/lengths_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>

#include "common/block_lookup.h"
#include "common/check.h"
#include "common/format.h"
#include "pagedkv/core/mask.h"

namespace pagedkv::common {
namespace {

constexpr std::uintptr_t kBlockAlignment = 16;

/// cu_q and cu_k, and k_len >= q_len.
void check_q_and_k(std::string_view owner, const std::int32_t* cu_q, const std::int32_t* cu_k, std::int32_t batch) {
  check_cumulative(owner, "cu_q", cu_q, batch);
  check_cumulative(owner, "cu_k", cu_k, batch);
  for (std::int32_t b = 0; b < batch; ++b) {
    const std::int64_t q_len = cu_q[b + 1] - cu_q[b];
    if (cu_k[b + 1] - cu_k[b] < q_len) {
      reject_element(
          owner, "cu_k", b + 1, cu_k[b + 1],
          formatted("at least cu_k[{}] + q_len = {}, because sequence {} has q_len {}", b, cu_k[b] + q_len, b, q_len));
    }
  }
}

/// Checks the table entries of some logical blocks of sequence b; those before the range must exist too.
void check_blocks(std::string_view owner, const BlockTable& t, std::int32_t b, BlockRange range) {
  const auto [first, last] = range;
  if (first == last) return;
  const std::int64_t have = t.cu_blocks != nullptr ? t.cu_blocks[b + 1] - t.cu_blocks[b] : t.row_stride;
  if (have < last) {
    if (t.cu_blocks != nullptr) {
      reject_element(owner, "table.cu_blocks", b + 1, t.cu_blocks[b + 1],
                     formatted("at least cu_blocks[{}] + {} = {}, the blocks that sequence {} needs", b, last,
                               t.cu_blocks[b] + last, b));
    }
    reject(owner, "table.row_stride", t.row_stride,
           formatted("at least {}, the blocks that sequence {} needs", last, b));
  }
  const std::int64_t base = t.cu_blocks != nullptr ? t.cu_blocks[b] : std::int64_t{b} * t.row_stride;
  for (std::int64_t j = first; j < last; ++j) {
    const std::int64_t entry = base + j;
    if (t.pointers != nullptr) {
      const char* p = t.pointers[entry];
      if (p == nullptr || !is_aligned(p, kBlockAlignment)) {
        reject_element(
            owner, "table.pointers", entry, static_cast<const void*>(p),
            formatted("a block address aligned to {} bytes (sequence {}, logical block {})", kBlockAlignment, b, j));
      }
    } else if (t.indices[entry] < 0 || t.indices[entry] >= t.slab_blocks) {
      reject_element(owner, "table.indices", entry, t.indices[entry],
                     formatted("0 .. {} (sequence {}, logical block {})", t.slab_blocks - 1, b, j));
    }
  }
}

void check_cu_blocks(std::string_view owner, const BlockTable& t, std::int32_t batch) {
  if (t.cu_blocks != nullptr) check_cumulative(owner, "table.cu_blocks", t.cu_blocks, batch);
}

std::int64_t blocks_of(std::int64_t local_tokens, std::int32_t block_len) {
  return (local_tokens + block_len - 1) / block_len;
}

/// Per-sequence RoPE data. `rotated` (one per sequence) is how many tokens look positions up.
template <class Rotated>
void check_rope_data(std::string_view owner, const core::RopeTable& r, std::int32_t batch, Rotated rotated) {
  if (r.dim == 0) return;
  for (std::int32_t b = 0; b < batch; ++b) {
    if (r.base != nullptr && !(std::isfinite(r.base[b]) && r.base[b] >= 1.0F)) {
      reject_element(owner, "rope.base", b, r.base[b], "a finite number, at least 1");
    }
    if (r.mrope == MropeMode::none || r.mrope_length == nullptr) continue;
    if (r.mrope_length[b] < 0) reject_element(owner, "rope.mrope_length", b, r.mrope_length[b], "at least 0");
    const bool reads = std::min(r.mrope_length[b], rotated(b)) > 0;
    if (reads && r.mrope_offsets[b] < 0) {
      reject_element(owner, "rope.mrope_offsets", b, r.mrope_offsets[b], "at least 0");
    }
  }
}

std::int32_t difference(const std::int32_t* cu, std::int32_t b) {
  return cu[b + 1] - cu[b];
}

}  // namespace

void check_cumulative(std::string_view owner, std::string_view field, const std::int32_t* cu, std::int32_t batch) {
  if (cu[0] < 0) reject_element(owner, field, 0, cu[0], "at least 0");
  for (std::int32_t b = 0; b < batch; ++b) {
    if (cu[b + 1] < cu[b]) {
      reject_element(owner, field, b + 1, cu[b + 1], formatted("at least {}[{}] = {}", field, b, cu[b]));
    }
  }
}

std::int64_t table_entries(const BlockTable& table, std::int32_t batch) {
  if (batch == 0) return 0;
  return table.cu_blocks != nullptr ? table.cu_blocks[batch] : std::int64_t{batch} * table.row_stride;
}

BlockRange written_blocks(const WriteKvArgs& a, std::int32_t b) {
  const core::Ownership ownership(a.cp);
  const std::int32_t k_len = difference(a.cu_k, b);
  const std::int32_t new_local = ownership.count(k_len - difference(a.cu_q, b));  // local index of the first new token
  const std::int32_t local = ownership.count(k_len);
  const std::int64_t last = blocks_of(local, a.layout.block_len);
  if (local == new_local) return {last, last};
  const std::int64_t readonly = a.readonly_blocks != nullptr ? a.readonly_blocks[b] : 0;
  return {std::min(std::max(readonly, std::int64_t{new_local / a.layout.block_len}), last), last};
}

BlockRange read_blocks(const FlattenKvArgs& a, std::int32_t b) {
  return {0, blocks_of(core::Ownership(a.cp).count(difference(a.cu_k, b)), a.layout.block_len)};
}

void check_lengths(const WriteKvArgs& a) {
  constexpr std::string_view kOwner = "WriteKvArgs";
  if (a.batch == 0) return;
  check_q_and_k(kOwner, a.cu_q, a.cu_k, a.batch);
  check_cu_blocks(kOwner, a.table, a.batch);
  check_rope_data(kOwner, a.rope, a.batch, [&](std::int32_t b) { return difference(a.cu_q, b); });
  for (std::int32_t b = 0; b < a.batch; ++b) {
    if (a.readonly_blocks != nullptr && a.readonly_blocks[b] < 0) {
      reject_element(kOwner, "readonly_blocks", b, a.readonly_blocks[b], "at least 0");
    }
    check_blocks(kOwner, a.table, b, written_blocks(a, b));
  }
}

void check_no_overlap(const WriteKvArgs& a, std::string_view owner) {
  struct Writer {
    std::int32_t sequence;
    std::int64_t block;
  };
  std::unordered_map<const char*, Writer> writers;
  for (std::int32_t b = 0; b < a.batch; ++b) {
    const BlockRange range = written_blocks(a, b);
    for (std::int64_t j = range.first; j < range.last; ++j) {
      const std::int64_t entry = first_entry(a.table, b) + j;
      const char* address = entry_address(a.table, a.layout.block_bytes, entry);
      const auto [other, is_new] = writers.try_emplace(address, Writer{b, j});
      if (is_new) continue;
      const std::string accepted = formatted(
          "a block of its own for what is written (sequence {}, logical block {}); sequence {}, logical block {} "
          "writes it too",
          b, j, other->second.sequence, other->second.block);
      if (a.table.pointers != nullptr) {
        reject_element(owner, "table.pointers", entry, static_cast<const void*>(address), accepted);
      }
      reject_element(owner, "table.indices", entry, a.table.indices[entry], accepted);
    }
  }
}

void check_lengths(const FlattenKvArgs& a) {
  constexpr std::string_view kOwner = "FlattenKvArgs";
  if (a.batch == 0) return;
  check_cumulative(kOwner, "cu_k", a.cu_k, a.batch);
  check_cu_blocks(kOwner, a.table, a.batch);
  check_rope_data(kOwner, a.rope, a.batch, [&](std::int32_t b) { return difference(a.cu_k, b); });
  for (std::int32_t b = 0; b < a.batch; ++b) check_blocks(kOwner, a.table, b, read_blocks(a, b));
}

BlockRange read_blocks(const AttentionArgs& a, std::int32_t b) {
  const std::int32_t q_len = difference(a.cu_q, b);
  const std::int32_t k_len = difference(a.cu_k, b);
  if (q_len == 0) return {0, 0};
  const core::Ownership ownership(a.cp);
  // The oldest key that any of the new tokens sees.
  const std::int32_t first = core::visible_keys(k_len - q_len, k_len, a.causal, a.window).first;
  return {ownership.count(first) / a.layout.block_len, blocks_of(ownership.count(k_len), a.layout.block_len)};
}

void check_lengths(const AttentionArgs& a) {
  constexpr std::string_view kOwner = "AttentionArgs";
  if (a.batch == 0) return;
  check_q_and_k(kOwner, a.cu_q, a.cu_k, a.batch);
  check_cu_blocks(kOwner, a.table, a.batch);
  if (a.cu_q[a.batch] > a.max_total_q) {
    reject_element(kOwner, "cu_q", a.batch, a.cu_q[a.batch], formatted("at most max_total_q = {}", a.max_total_q));
  }
  for (std::int32_t b = 0; b < a.batch; ++b) {
    const std::int32_t q_len = difference(a.cu_q, b);
    const std::int32_t k_len = difference(a.cu_k, b);
    if (q_len > a.max_q_len) {
      reject_element(kOwner, "cu_q", b + 1, a.cu_q[b + 1],
                     formatted("at most cu_q[{}] + max_q_len = {}", b, std::int64_t{a.cu_q[b]} + a.max_q_len));
    }
    if (k_len > a.max_k_len) {
      reject_element(kOwner, "cu_k", b + 1, a.cu_k[b + 1],
                     formatted("at most cu_k[{}] + max_k_len = {}", b, std::int64_t{a.cu_k[b]} + a.max_k_len));
    }
    check_blocks(kOwner, a.table, b, read_blocks(a, b));
    if (a.fuse_write.k != nullptr && a.fuse_write.readonly_blocks != nullptr && a.fuse_write.readonly_blocks[b] < 0) {
      reject_element(kOwner, "fuse_write.readonly_blocks", b, a.fuse_write.readonly_blocks[b], "at least 0");
    }
  }
  if (a.fuse_write.k != nullptr || a.rotate_q) {
    check_rope_data(kOwner, a.rope, a.batch, [&](std::int32_t b) { return difference(a.cu_q, b); });
  }
}

WriteKvArgs write_of(const AttentionArgs& a) {
  WriteKvArgs w;
  w.layout = a.layout;
  w.layer = a.layer;
  w.table = a.table;
  w.batch = a.batch;
  w.cu_q = a.cu_q;
  w.cu_k = a.cu_k;
  w.max_total_q = a.max_total_q;
  w.k = a.fuse_write.k;
  w.v = a.fuse_write.v;
  w.strides = a.fuse_write.strides;
  w.k_bias = a.fuse_write.k_bias;
  w.v_bias = a.fuse_write.v_bias;
  w.rope = a.rope;
  w.cp = a.cp;
  w.readonly_blocks = a.fuse_write.readonly_blocks;
  return w;
}

void check_lengths(const ApplyRopeArgs& a) {
  constexpr std::string_view kOwner = "ApplyRopeArgs";
  if (a.batch == 0) return;
  check_q_and_k(kOwner, a.cu_q, a.cu_k, a.batch);
  check_rope_data(kOwner, a.rope, a.batch, [&](std::int32_t b) { return difference(a.cu_q, b); });
}

}  // namespace pagedkv::common
