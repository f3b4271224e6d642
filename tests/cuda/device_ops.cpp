#include "cuda/device_ops.h"

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "cuda/device_memory.h"
#include "pagedkv/core/context_parallel.h"
#include "pagedkv/cpu.h"

namespace support {
namespace {

using pagedkv::TokenStrides;

/// A range of host memory and its copy.
struct Mirror {
  char* host = nullptr;
  DeviceBuffer device;

  char* translate(const void* p) const { return device.data() + (static_cast<const char*>(p) - host); }
  void copy_back() const { device.get(host); }
};

Mirror mirror(const void* host, std::size_t bytes) {
  return {static_cast<char*>(const_cast<void*>(host)), DeviceBuffer(host, bytes)};
}

/// Half-open range of host bytes.
struct Range {
  char* first = nullptr;
  char* last = nullptr;
  std::size_t size() const { return static_cast<std::size_t>(last - first); }
};

/// The blocks of a table, which must lie in one allocation.
Range blocks_of(const pagedkv::BlockTable& table, std::int64_t block_bytes, std::int32_t batch) {
  if (table.indices != nullptr) return {table.slab, table.slab + table.slab_blocks * block_bytes};
  const std::int64_t entries =
      table.cu_blocks != nullptr ? table.cu_blocks[batch] : std::int64_t{batch} * table.row_stride;
  Range r;
  for (std::int64_t i = 0; i < entries; ++i) {
    char* p = table.pointers[i];
    if (p == nullptr) continue;
    r.first = r.first == nullptr ? p : std::min(r.first, p);
    r.last = std::max(r.last, p + block_bytes);
  }
  return r;
}

/// Copies of the arrays of one call.
class Arrays {
 public:
  template <class V>
  void to_device(const V*& array, std::int64_t count) {
    if (array == nullptr) return;
    mirrors_.push_back(mirror(array, static_cast<std::size_t>(count) * sizeof(V)));
    array = mirrors_.back().device.as<const V>();
  }

  void to_device(pagedkv::core::RopeTable& rope, std::int32_t batch) {
    if (rope.mrope_length != nullptr) {
      std::int64_t rows = 0;
      for (std::int32_t b = 0; b < batch; ++b) {
        rows = std::max(rows, std::int64_t{rope.mrope_offsets[b]} + rope.mrope_length[b]);
      }
      to_device(rope.mrope_position_ids, 3 * rows);
    }
    to_device(rope.base, batch);
    to_device(rope.mrope_offsets, batch);
    to_device(rope.mrope_length, batch);
    to_device(rope.mrope_delta, batch);
  }

  /// Blocks and table. The blocks of a pointer table must lie in one allocation.
  Mirror to_device(pagedkv::BlockTable& table, std::int64_t block_bytes, std::int32_t batch) {
    const std::int64_t entries =
        table.cu_blocks != nullptr ? table.cu_blocks[batch] : std::int64_t{batch} * table.row_stride;
    const Range range = blocks_of(table, block_bytes, batch);
    Mirror blocks = mirror(range.first, range.size());
    if (table.indices != nullptr) {
      table.slab = blocks.device.data();
      to_device(table.indices, entries);
    } else {
      pointers_.assign(table.pointers, table.pointers + entries);
      pointers_.resize(std::max<std::size_t>(pointers_.size(), 1));  // so that an empty table is no null pointer
      for (char*& p : pointers_) {
        if (p != nullptr) p = blocks.translate(p);
      }
      char* const* array = pointers_.data();
      to_device(array, entries);
      table.pointers = array;
    }
    to_device(table.cu_blocks, batch + 1);
    return blocks;
  }

 private:
  std::deque<Mirror> mirrors_;
  std::vector<char*> pointers_;
};

/// Bytes from the pointer of k (or v) to behind the last element of the rows that are there.
template <class RowsOf>
std::size_t tensor_bytes(const TokenStrides& s, const std::int32_t* cu, std::int32_t origin, std::int32_t batch,
                         const pagedkv::BlockLayout& layout, RowsOf rows_of) {
  std::int64_t elements = 0;
  for (std::int32_t b = 0; b < batch; ++b) {
    const std::int64_t rows = rows_of(b);
    if (rows == 0) continue;
    elements = std::max(elements, s.batch * b + s.start * (cu[b] - origin) + s.token * (rows - 1) +
                                      s.head * (layout.kv_heads - 1) + layout.head_dim);
  }
  return static_cast<std::size_t>(elements * pagedkv::dtype_bytes(layout.dtype));
}

/// k and v of flatten_kv: two ranges, or one if they interleave.
std::vector<Range> outputs_of(const pagedkv::FlattenKvArgs& a) {
  if (a.batch == 0) return {};
  const pagedkv::core::Ownership owner(a.cp);
  const std::size_t bytes = tensor_bytes(a.strides, a.cu_k, a.cu_k[0], a.batch, a.layout,
                                         [&](std::int32_t b) { return owner.count(a.cu_k[b + 1] - a.cu_k[b]); });
  char* k = static_cast<char*>(a.k);
  char* v = static_cast<char*>(a.v);
  if (v == nullptr) return {{k, k + bytes}};
  if (std::max(k, v) < std::min(k, v) + bytes) return {{std::min(k, v), std::max(k, v) + bytes}};
  return {{k, k + bytes}, {v, v + bytes}};
}

/// Runs two versions of an operation, each on the same contents of `ranges`, and compares them after it.
template <class First, class Second>
std::string why_results_differ(const std::vector<Range>& ranges, First first, Second second) {
  const auto save = [&] {
    std::vector<std::vector<char>> copies;
    for (const Range& r : ranges) copies.emplace_back(r.first, r.last);
    return copies;
  };
  const auto before = save();
  first();
  const auto after = save();
  for (std::size_t i = 0; i < ranges.size(); ++i) std::copy(before[i].begin(), before[i].end(), ranges[i].first);
  second();
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const auto [a, b] = std::mismatch(after[i].begin(), after[i].end(), ranges[i].first);
    if (a == after[i].end()) continue;
    const auto hex = [](char c) { return std::to_string(static_cast<unsigned char>(c)); };
    return "byte " + std::to_string(a - after[i].begin()) + " of range " + std::to_string(i) + " is " + hex(*a) +
           " on the device and " + hex(*b) + " on the CPU";
  }
  return {};
}

void finish() {
  cuda_ok(cudaGetLastError());
  cuda_ok(cudaDeviceSynchronize());
}

}  // namespace

void device_write_kv(const pagedkv::WriteKvArgs& args, DeviceCall call) {
  pagedkv::WriteKvArgs a = args;
  if (args.batch == 0) {
    pagedkv::cuda::write_kv(a, call.validation, nullptr);
    return finish();
  }
  const std::size_t bytes = tensor_bytes(args.strides, args.cu_q, 0, args.batch, args.layout,
                                         [&](std::int32_t b) { return args.cu_q[b + 1] - args.cu_q[b]; });
  Arrays arrays;
  const Mirror k = mirror(args.k, bytes);
  a.k = k.device.data();
  Mirror v;
  if (args.v != nullptr) {
    v = mirror(args.v, bytes);
    a.v = v.device.data();
  }
  const std::int64_t bias_bytes =
      std::int64_t{args.layout.kv_heads} * args.layout.head_dim * pagedkv::dtype_bytes(args.layout.dtype);
  for (const void** bias : {&a.k_bias, &a.v_bias}) {
    auto* bytes_of = static_cast<const char*>(*bias);
    arrays.to_device(bytes_of, bias_bytes);
    *bias = bytes_of;
  }
  const Mirror blocks = arrays.to_device(a.table, a.layout.block_bytes, a.batch);
  arrays.to_device(a.rope, a.batch);
  arrays.to_device(a.readonly_blocks, a.batch);
  arrays.to_device(a.cu_q, a.batch + 1);
  arrays.to_device(a.cu_k, a.batch + 1);
  a.max_total_q = args.cu_q[a.batch] - args.cu_q[0] + call.slack;
  pagedkv::cuda::write_kv(a, call.validation, nullptr);
  finish();
  blocks.copy_back();
}

void device_flatten_kv(const pagedkv::FlattenKvArgs& args, DeviceCall call) {
  pagedkv::FlattenKvArgs a = args;
  if (args.batch == 0) {
    pagedkv::cuda::flatten_kv(a, call.validation, nullptr);
    return finish();
  }
  Arrays arrays;
  std::vector<Mirror> outputs;
  for (const Range& r : outputs_of(args)) outputs.push_back(mirror(r.first, r.size()));
  a.k = outputs.front().translate(a.k);
  if (a.v != nullptr) a.v = outputs.back().translate(a.v);
  const Mirror blocks = arrays.to_device(a.table, a.layout.block_bytes, a.batch);
  arrays.to_device(a.rope, a.batch);
  arrays.to_device(a.cu_k, a.batch + 1);
  a.max_total_k = args.cu_k[a.batch] - args.cu_k[0] + call.slack;
  pagedkv::cuda::flatten_kv(a, call.validation, nullptr);
  finish();
  for (const Mirror& m : outputs) m.copy_back();
  blocks.copy_back();  // flatten_kv must not write here; a test sees it if it does
}

std::string why_different(const pagedkv::WriteKvArgs& args, DeviceCall call) {
  std::vector<Range> ranges;
  if (args.batch > 0) ranges.push_back(blocks_of(args.table, args.layout.block_bytes, args.batch));
  return why_results_differ(
      ranges, [&] { device_write_kv(args, call); }, [&] { pagedkv::cpu::write_kv(args); });
}

std::string why_different(const pagedkv::FlattenKvArgs& args, DeviceCall call) {
  return why_results_differ(
      outputs_of(args), [&] { device_flatten_kv(args, call); }, [&] { pagedkv::cpu::flatten_kv(args); });
}

bool have_device() {
  int count = 0;
  const bool found = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  cudaGetLastError();
  return found;
}

bool device_required() {
  const char* value = std::getenv("PAGEDKV_REQUIRE_GPU");
  return value != nullptr && std::string_view(value) == "1";
}

std::string why_no_device() {
  if (have_device()) return {};
  if (device_required()) throw std::runtime_error("PAGEDKV_REQUIRE_GPU=1, but there is no CUDA device");
  return "no CUDA device";
}

}  // namespace support
