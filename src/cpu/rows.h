#pragma once
// The inner loops of write, flatten and RoPE: rows of head_dim elements into and out of their stored form, for every
// SIMD target. rows_scalar.cpp states the results with the functions of core; every target has the same bits.

#include <cstdint>

#include "cpu/targets.h"
#include "pagedkv/core/rope.h"
#include "pagedkv/types.h"

namespace pagedkv::cpu {

/// Sine and cosine of one token's pairs, spread over the rotated channels:
///   x'[d] = fma(cos[d], x[d], sin[d] * x[partner of d]),
/// where sin has the minus sign on the first channel of a pair already.
struct RotationRow {
  float cos[2 * core::kMaxRopePairs];
  float sin[2 * core::kMaxRopePairs];
};

/// `rows` rows that are written at one token (its heads): + bias, rotate, statistics, encode.
/// A `same` row with neither bias nor rotation is copied, bit for bit.
struct WriteRows {
  const void* x = nullptr;                ///< T [rows][dim]
  std::int64_t x_stride = 0;              ///< bytes from row to row
  const void* bias = nullptr;             ///< T [rows][dim], packed; may be null
  const RotationRow* rotation = nullptr;  ///< null: no rotation
  RopePairs pairs = RopePairs::interleaved;
  std::int32_t rope_dim = 0;
  std::int32_t rows = 0;
  std::int32_t dim = 0;  ///< multiple of 16, at most 1024
  char* data = nullptr;  ///< stored elements
  std::int64_t data_stride = 0;
  char* param = nullptr;  ///< {scale, zero}; not used for `same`
  std::int64_t param_stride = 0;
  bool stream = false;  ///< rows whose bytes fill cache lines go past the caches; then call finish() before others read
};

/// `rows` rows that are read (tokens of one head): decoded to T. `same` is copied.
struct ReadRows {
  const char* data = nullptr;
  std::int64_t data_stride = 0;
  const char* param = nullptr;
  std::int64_t param_stride = 0;
  std::int32_t rows = 0;
  std::int32_t dim = 0;
  void* y = nullptr;  ///< T [rows][dim]
  std::int64_t y_stride = 0;
  bool stream = false;  ///< as in WriteRows
};

/// Outputs of at least this many bytes are streamed: more than the caches keep until someone reads them, so that
/// fetching lines only to overwrite them would cost a third of the memory traffic for nothing.
inline constexpr std::int64_t kStreamBytes = 16 << 20;

using WriteRowsFn = void (*)(const WriteRows&);
using ReadRowsFn = void (*)(const ReadRows&);

/// Fills `out` from the phases (upper 32 of 64 bits) of `pairs` pairs; `dim` = 2 * pairs channels.
using RotationFn = void (*)(const std::uint32_t* phase, int pairs, RopePairs order, float factor, RotationRow& out);

/// The loops of one target.
struct WriteKernels {
  WriteRowsFn write[3][3];  ///< [DType][KvType]
  RotationFn rotation;
  void (*finish)();  ///< makes streamed rows visible to other threads

  WriteRowsFn rows(DType t, KvType kv) const { return write[static_cast<int>(t)][static_cast<int>(kv)]; }
};

struct ReadKernels {
  ReadRowsFn read[3][3];  ///< [DType][KvType]
  void (*finish)();       ///< makes streamed rows visible to other threads

  ReadRowsFn rows(DType t, KvType kv) const { return read[static_cast<int>(t)][static_cast<int>(kv)]; }
};

extern const WriteKernels kScalarWriteKernels;
extern const ReadKernels kScalarReadKernels;

const WriteKernels& write_kernels(Target target);
const ReadKernels& read_kernels(Target target);

}  // namespace pagedkv::cpu
