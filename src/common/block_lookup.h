#pragma once
// Address of a logical block, on host and device.

#include <cstdint>

#include "pagedkv/core/hd.h"
#include "pagedkv/ops.h"

namespace pagedkv::common {

/// Table entry of logical block 0 of a sequence.
PAGEDKV_HD std::int64_t first_entry(const BlockTable& table, std::int32_t sequence) {
  return table.cu_blocks != nullptr ? table.cu_blocks[sequence] : std::int64_t{sequence} * table.row_stride;
}

/// Start of the block that a table entry names.
PAGEDKV_HD char* entry_address(const BlockTable& table, std::int64_t block_bytes, std::int64_t entry) {
  if (table.pointers != nullptr) return table.pointers[entry];
  return table.slab + table.indices[entry] * block_bytes;
}

/// Start of logical block `block` of sequence `sequence`.
PAGEDKV_HD char* block_address(const BlockTable& table, std::int64_t block_bytes, std::int32_t sequence,
                               std::int32_t block) {
  return entry_address(table, block_bytes, first_entry(table, sequence) + block);
}

}  // namespace pagedkv::common
