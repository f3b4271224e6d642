#pragma once
// Address of a logical block, on host and device.

#include <cstdint>

#include "pagedkv/core/hd.h"
#include "pagedkv/ops.h"

namespace pagedkv::common {

/// Start of logical block `block` of sequence `sequence`.
PAGEDKV_HD char* block_address(const BlockTable& table, std::int64_t block_bytes, std::int32_t sequence,
                               std::int32_t block) {
  const std::int64_t first =
      table.cu_blocks != nullptr ? table.cu_blocks[sequence] : std::int64_t{sequence} * table.row_stride;
  if (table.pointers != nullptr) return table.pointers[first + block];
  return table.slab + table.indices[first + block] * block_bytes;
}

}  // namespace pagedkv::common
