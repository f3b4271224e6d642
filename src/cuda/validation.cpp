#include "cuda/validation.h"

#include <cuda_runtime_api.h>

#include <string>
#include <unordered_set>

#include "common/block_lookup.h"
#include "common/check.h"
#include "common/format.h"
#include "common/lengths_check.h"
#include "cuda/check.h"
#include "pagedkv/error.h"

namespace pagedkv::cuda {
namespace {

/// Whether the current device can read and write a byte.
bool is_device_memory(const char* p) {
  cudaPointerAttributes attributes{};
  const cudaError_t status = cudaPointerGetAttributes(&attributes, p);
  if (status == cudaErrorInvalidValue) {
    cudaGetLastError();  // an address that the runtime does not know: not sticky
    return false;
  }
  check(status, "cudaPointerGetAttributes");
  return attributes.devicePointer != nullptr && attributes.type != cudaMemoryTypeUnregistered;
}

/// Checks that blocks which an operation touches are memory of the device, from their first byte to their last.
template <class Args, class Range>
void check_block_memory(const char* owner, const Args& host, Range range_of) {
  std::unordered_set<const char*> seen;
  for (std::int32_t b = 0; b < host.batch; ++b) {
    const common::BlockRange range = range_of(b);
    for (std::int64_t j = range.first; j < range.last; ++j) {
      const std::int64_t entry = common::first_entry(host.table, b) + j;
      const char* block = common::entry_address(host.table, host.layout.block_bytes, entry);
      if (!seen.insert(block).second) continue;
      if (is_device_memory(block) && is_device_memory(block + host.layout.block_bytes - 1)) continue;
      const std::string accepted =
          common::formatted("{} bytes of device memory (sequence {}, logical block {})", host.layout.block_bytes, b, j);
      common::reject_element(owner, host.table.pointers != nullptr ? "table.pointers" : "table.indices", entry,
                             static_cast<const void*>(block), accepted);
    }
  }
}

/// cu[batch] - cu[0] within the stated bound.
void check_total(const char* owner, const char* field, const std::int32_t* cu, std::int32_t batch, const char* bound,
                 std::int64_t most) {
  if (std::int64_t{cu[batch]} - cu[0] > most) {
    common::reject_element(owner, field, batch, cu[batch],
                           common::formatted("at most {}[0] + {} = {}", field, bound, cu[0] + most));
  }
}

}  // namespace

HostCopies::HostCopies(Stream stream) : stream_(stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  if (status != cudaStreamCaptureStatusNone) {
    throw Error(ErrorCode::invalid_state, "validation", "full, on a stream that is being captured",
                "Validation::arguments while a graph is captured");
  }
}

const void* HostCopies::copy(const void* array, std::int64_t count, std::size_t element, const char* name) {
  const std::size_t bytes = static_cast<std::size_t>(count) * element;
  arrays_.push_back(std::make_unique<std::byte[]>(bytes + 1));
  void* host = arrays_.back().get();
  cudaError_t status = cudaMemcpyAsync(host, array, bytes, cudaMemcpyDefault, stream_);
  if (status == cudaErrorInvalidValue) {
    cudaGetLastError();
    throw Error(ErrorCode::invalid_argument, name, common::text(array),
                common::formatted("device memory of {} elements, {} bytes", count, bytes));
  }
  check(status, "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  return host;
}

void HostCopies::fetch(BlockTable& table, std::int32_t batch, const char* owner) {
  fetch(table.cu_blocks, batch + 1, "table.cu_blocks");
  if (table.cu_blocks != nullptr) common::check_cumulative(owner, "table.cu_blocks", table.cu_blocks, batch);
  const std::int64_t entries = common::table_entries(table, batch);
  fetch(table.pointers, entries, "table.pointers");
  fetch(table.indices, entries, "table.indices");
}

void HostCopies::fetch(core::RopeTable& rope, std::int32_t batch) {
  if (rope.dim == 0) return;
  fetch(rope.base, batch, "rope.base");
  if (rope.mrope == MropeMode::none) return;
  fetch(rope.mrope_length, batch, "rope.mrope_length");
  fetch(rope.mrope_offsets, batch, "rope.mrope_offsets");
}

void validate_contents(const WriteKvArgs& args, Stream stream) {
  if (args.batch == 0) return;
  constexpr const char* kOwner = "WriteKvArgs";
  HostCopies copies(stream);
  WriteKvArgs host = args;
  copies.fetch(host.cu_q, args.batch + 1, "cu_q");
  copies.fetch(host.cu_k, args.batch + 1, "cu_k");
  copies.fetch(host.readonly_blocks, args.batch, "readonly_blocks");
  copies.fetch(host.table, args.batch, kOwner);
  copies.fetch(host.rope, args.batch);
  common::check_lengths(host);
  check_total(kOwner, "cu_q", host.cu_q, host.batch, "max_total_q", args.max_total_q);
  check_block_memory(kOwner, host, [&](std::int32_t b) { return common::written_blocks(host, b); });
  common::check_no_overlap(host);
}

void validate_contents(const FlattenKvArgs& args, Stream stream) {
  if (args.batch == 0) return;
  constexpr const char* kOwner = "FlattenKvArgs";
  HostCopies copies(stream);
  FlattenKvArgs host = args;
  copies.fetch(host.cu_k, args.batch + 1, "cu_k");
  copies.fetch(host.table, args.batch, kOwner);
  copies.fetch(host.rope, args.batch);
  common::check_lengths(host);
  check_total(kOwner, "cu_k", host.cu_k, host.batch, "max_total_k", args.max_total_k);
  check_block_memory(kOwner, host, [&](std::int32_t b) { return common::read_blocks(host, b); });
}

void validate_contents(const AttentionArgs& args, Stream stream) {
  if (args.batch == 0) return;
  constexpr const char* kOwner = "AttentionArgs";
  HostCopies copies(stream);
  AttentionArgs host = args;
  copies.fetch(host.cu_q, args.batch + 1, "cu_q");
  copies.fetch(host.cu_k, args.batch + 1, "cu_k");
  copies.fetch(host.table, args.batch, kOwner);
  copies.fetch(host.fuse_write.readonly_blocks, args.batch, "fuse_write.readonly_blocks");
  if (args.fuse_write.k != nullptr || args.rotate_q) copies.fetch(host.rope, args.batch);
  common::check_lengths(host);
  check_block_memory(kOwner, host, [&](std::int32_t b) { return common::read_blocks(host, b); });
  if (args.fuse_write.k != nullptr) common::check_no_overlap(common::write_of(host), kOwner);
}

}  // namespace pagedkv::cuda
