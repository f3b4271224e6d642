#include <array>
#include <bit>
#include <cstring>

#include "cpu/rows.h"
#include "pagedkv/core/half.h"
#include "pagedkv/core/quant.h"

namespace pagedkv::cpu {
namespace {

static_assert(std::endian::native == std::endian::little, "words of int4 codes are stored little-endian");

constexpr int kMaxDim = 1024;

template <class T>
void load_row(const WriteRows& w, std::int32_t row, float* out) {
  const auto* x = reinterpret_cast<const T*>(static_cast<const char*>(w.x) + row * w.x_stride);
  const T* bias = w.bias == nullptr ? nullptr : static_cast<const T*>(w.bias) + std::int64_t{row} * w.dim;
  for (int d = 0; d < w.dim; ++d) {
    out[d] = bias == nullptr ? core::to_float(x[d]) : core::add_rn(core::to_float(x[d]), core::to_float(bias[d]));
  }
  if (w.rotation == nullptr) return;
  for (int i = 0; i < w.rope_dim / 2; ++i) {
    const int first = core::pair_first(w.pairs, i);
    core::rotate(out[first], out[core::pair_second(w.pairs, i, w.rope_dim)],
                 {-w.rotation->sin[first], w.rotation->cos[first]});
  }
}

template <class T, int Bits>
void encode_row(const float* x, int dim, char* data, char* param) {
  float mn = x[0];
  float mx = x[0];
  for (int d = 1; d < dim; ++d) {
    mn = core::min_nan(mn, x[d]);
    mx = core::max_nan(mx, x[d]);
  }
  const auto p = core::quant_param<T, Bits>(mn, mx);
  std::memcpy(param, &p, sizeof(p));
  const core::RowEncoder encoder = core::row_encoder(p);
  for (int d = 0; d < dim; d += 8) {
    std::uint32_t code[8];
    for (int i = 0; i < 8; ++i) code[i] = core::encode<Bits>(x[d + i], encoder);
    if constexpr (Bits == 4) {
      const std::uint32_t word = core::pack_int4(code);
      std::memcpy(data + d / 2, &word, sizeof(word));
    } else {
      for (int i = 0; i < 8; ++i) data[d + i] = static_cast<char>(code[i]);
    }
  }
}

template <class T, KvType Kv>
void write_rows(const WriteRows& w) {
  for (std::int32_t row = 0; row < w.rows; ++row) {
    char* data = w.data + row * w.data_stride;
    if (Kv == KvType::same && w.bias == nullptr && w.rotation == nullptr) {
      // apply_rope() may be asked to leave a row where it is.
      std::memmove(data, static_cast<const char*>(w.x) + row * w.x_stride, static_cast<std::size_t>(w.dim) * sizeof(T));
      continue;
    }
    std::array<float, kMaxDim> x;
    load_row<T>(w, row, x.data());
    if constexpr (Kv == KvType::same) {
      for (int d = 0; d < w.dim; ++d) {
        const T y = core::from_float<T>(x[static_cast<std::size_t>(d)]);
        std::memcpy(data + static_cast<std::size_t>(d) * sizeof(T), &y, sizeof(T));
      }
    } else {
      encode_row<T, Kv == KvType::int8 ? 8 : 4>(x.data(), w.dim, data, w.param + row * w.param_stride);
    }
  }
}

template <class T, KvType Kv>
void read_rows(const ReadRows& r) {
  for (std::int32_t row = 0; row < r.rows; ++row) {
    const char* data = r.data + row * r.data_stride;
    auto* y = reinterpret_cast<T*>(static_cast<char*>(r.y) + row * r.y_stride);
    if constexpr (Kv == KvType::same) {
      std::memcpy(y, data, static_cast<std::size_t>(r.dim) * sizeof(T));
    } else {
      core::QuantParam<T> p;
      std::memcpy(&p, r.param + row * r.param_stride, sizeof(p));
      for (int d = 0; d < r.dim; ++d) {
        std::uint32_t code = 0;
        if constexpr (Kv == KvType::int4) {
          std::uint32_t word = 0;
          std::memcpy(&word, data + d / 8 * 4, sizeof(word));
          code = core::unpack_int4(word, d % 8);
        } else {
          code = static_cast<unsigned char>(data[d]);
        }
        y[d] = core::decode(code, p);
      }
    }
  }
}

void rotation_row(const std::uint32_t* phase, int pairs, RopePairs order, float factor, RotationRow& out) {
  for (int i = 0; i < pairs; ++i) {
    const core::SinCos t = core::sincos_turn(std::uint64_t{phase[i]} << 32);
    const float s = core::mul_rn(t.sin, factor);
    const float c = core::mul_rn(t.cos, factor);
    const int first = core::pair_first(order, i);
    const int second = core::pair_second(order, i, 2 * pairs);
    out.cos[first] = c;
    out.cos[second] = c;
    out.sin[first] = -s;
    out.sin[second] = s;
  }
}

}  // namespace

const WriteKernels kScalarWriteKernels = {
    .write = {{write_rows<float, KvType::same>, write_rows<float, KvType::int8>, write_rows<float, KvType::int4>},
              {write_rows<half_t, KvType::same>, write_rows<half_t, KvType::int8>, write_rows<half_t, KvType::int4>},
              {write_rows<bfloat16_t, KvType::same>, write_rows<bfloat16_t, KvType::int8>,
               write_rows<bfloat16_t, KvType::int4>}},
    .rotation = rotation_row,
    .finish = [] {}};

const ReadKernels kScalarReadKernels = {
    .read = {{read_rows<float, KvType::same>, read_rows<float, KvType::int8>, read_rows<float, KvType::int4>},
             {read_rows<half_t, KvType::same>, read_rows<half_t, KvType::int8>, read_rows<half_t, KvType::int4>},
             {read_rows<bfloat16_t, KvType::same>, read_rows<bfloat16_t, KvType::int8>,
              read_rows<bfloat16_t, KvType::int4>}},
    .finish = [] {}};

}  // namespace pagedkv::cpu
