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
};

using WriteRowsFn = void (*)(const WriteRows&);
using ReadRowsFn = void (*)(const ReadRows&);

/// Fills `out` from the phases (upper 32 of 64 bits) of `pairs` pairs; `dim` = 2 * pairs channels.
using RotationFn = void (*)(const std::uint32_t* phase, int pairs, RopePairs order, float factor, RotationRow& out);

/// The loops of one target.
struct RowKernels {
  WriteRowsFn write[3][3];  ///< [DType][KvType]
  ReadRowsFn read[3][3];    ///< [DType][KvType]
  RotationFn rotation;

  WriteRowsFn write_rows(DType t, KvType kv) const { return write[static_cast<int>(t)][static_cast<int>(kv)]; }
  ReadRowsFn read_rows(DType t, KvType kv) const { return read[static_cast<int>(t)][static_cast<int>(kv)]; }
};

extern const RowKernels kScalarRows;

const RowKernels& row_kernels(Target target);

}  // namespace pagedkv::cpu
