// Reading rows (rows.h) on every SIMD target. The scalar code of rows_scalar.cpp says what the results are; comments
// here say why the same bits come out.

#include <algorithm>
#include <cstring>

#include "cpu/rows.h"
#include "pagedkv/core/half.h"
#include "pagedkv/core/quant.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rows_read_simd.cpp"
#include "cpu/highway_targets.h"

#include <hwy/foreach_target.h>  // includes this file again for every target

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "cpu/rows_simd-inl.h"

#if PAGEDKV_SIMD_PASS
HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::HWY_NAMESPACE {

/// How code * scale + zero of a row of T can be computed in float32 and rounded to T only once.
enum class Decoding : std::uint8_t {
  plain,   ///< by the float32 fma: exact for every code or beyond T's range, or T is f32
  odd,     ///< by core::detail::fma_odd(), nothing overflows
  scalar,  ///< anything else: NaN, infinity, overflow
};

/// A sum of multiples of 2^n below 2^(n + 24) is exact in float32. A T has `digits` digits, a code 8 bits.
template <class T>
Decoding decoding(float scale, float zero) {
  const auto exponent = [](float x) { return static_cast<int>(core::bits_as<std::uint32_t>(x) >> 23 & 0xffu); };
  const int s = exponent(scale);
  const int z = exponent(zero);
  if (std::max(s, z) == 255) return Decoding::scalar;
  if (dtype_of<T> == DType::f32 || scale == 0.0F || zero == 0.0F) return Decoding::plain;
  // |code * scale| < 2^(s+9), |zero| < 2^(z+1), their sum below twice the larger.
  const int top = std::max(s + 9, z + 1) + 1;
  if (top > 254) return Decoding::scalar;
  // Subnormal numbers of f16 are normal floats, whose last digits stand further left than this.
  constexpr int digits = dtype_of<T> == DType::f16 ? 11 : 8;
  const int last_digit = std::min(s, z) - (digits - 1);
  return std::min(s, z) > 0 && top - last_digit <= 24 ? Decoding::plain : Decoding::odd;
}

/// core::detail::fma_odd() where no product overflows.
template <class DF>
hn::Vec<DF> fma_odd(DF df, hn::Vec<DF> code, hn::Vec<DF> scale, hn::Vec<DF> zero) {
  const hn::RebindToUnsigned<DF> du;
  const auto p = hn::Mul(code, scale);
  const auto s = hn::Add(p, zero);
  const auto b = hn::Sub(s, p);
  const auto err = hn::Add(hn::Sub(p, hn::Sub(s, b)), hn::Sub(zero, b));
  const auto u = hn::BitCast(du, s);
  const auto one = hn::Set(du, 1u);
  // +1 if the error has the sign of the sum, else -1 (a sum that is inexact is not zero).
  const auto signs_differ = hn::ShiftRight<31>(hn::Xor(u, hn::BitCast(du, err)));
  const auto step = hn::Sub(one, hn::Add(signs_differ, signs_differ));
  const auto inexact = hn::RebindMask(du, hn::Ne(err, hn::Zero(df)));
  const auto even = hn::Eq(hn::And(u, one), hn::Zero(du));
  return hn::BitCast(df, hn::Add(u, hn::IfThenElseZero(hn::And(inexact, even), step)));
}

/// Bytes of codes to T.
template <bool Stream, class T>
void decode_bytes(const std::uint8_t* code, int dim, core::QuantParam<T> p, T* y) {
  const FloatTag df;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<std::uint8_t, FloatTag> d8;
  const float scale = core::to_float(p.scale);
  const float zero = core::to_float(p.zero);
  const auto v_scale = hn::Set(df, scale);
  const auto v_zero = hn::Set(df, zero);
  const auto value = [&](int d) { return hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(d8, code + d))); };
  switch (decoding<T>(scale, zero)) {
    case Decoding::plain:
      for (int d = 0; d < dim; d += kLanes) store_number<Stream>(df, hn::MulAdd(value(d), v_scale, v_zero), y + d);
      return;
    case Decoding::odd:
      for (int d = 0; d < dim; d += kLanes) store_number<Stream>(df, fma_odd(df, value(d), v_scale, v_zero), y + d);
      return;
    case Decoding::scalar:
      for (int d = 0; d < dim; ++d) y[d] = core::decode(static_cast<std::uint32_t>(code[d]), p);
      return;
  }
}

/// Codes of words of 8, one byte each in element order; w has a word in each 64-bit lane.
template <class D64>
auto unpack_int4(D64 d64, hn::Vec<D64> w) {
  const hn::Repartition<std::uint8_t, D64> d8;
  const hn::Repartition<std::uint16_t, D64> d16;
  // Bytes e0|e2<<4, e4|e6<<4, e1|e3<<4, e5|e7<<4 of a word, spread so that every second pair wants its high nibbles.
  alignas(16) static constexpr std::uint8_t kSpread[16] = {0, 2, 0, 2, 1, 3, 1, 3, 8, 10, 8, 10, 9, 11, 9, 11};
  alignas(16) static constexpr std::uint8_t kHigh[16] = {0, 0, 255, 255, 0, 0, 255, 255,
                                                         0, 0, 255, 255, 0, 0, 255, 255};
  const auto spread = hn::TableLookupBytes(hn::BitCast(d8, w), hn::LoadDup128(d8, kSpread));
  const auto high = hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, spread)));
  const auto nibble = hn::IfVecThenElse(hn::LoadDup128(d8, kHigh), high, spread);
  return hn::And(nibble, hn::Set(d8, std::uint8_t{15}));
}

/// Values of codes, looked up in the 16 that a row can have.
template <bool Stream, class T>
void look_up_int4(const std::uint32_t* words, int count, const T (&values)[16], T* y) {
  alignas(16) std::uint8_t low_bytes[16];
  alignas(16) std::uint8_t high_bytes[16];
  for (int i = 0; i < 16; ++i) {
    low_bytes[i] = static_cast<std::uint8_t>(values[i].bits);
    high_bytes[i] = static_cast<std::uint8_t>(values[i].bits >> 8);
  }
  for_units(count, [&](auto d64, int i) {
    using D64 = decltype(d64);
    const hn::Repartition<std::uint8_t, D64> d8;
    const hn::Rebind<std::uint32_t, D64> d32;
    // Words i and i + lanes/2 share a 128-bit block, so that the lower halves of the blocks hold the first half of the
    // words and can be stored at once.
    constexpr std::uint32_t kLanes64 = hn::MaxLanes(D64());
    alignas(64) std::uint32_t order[kLanes64];
    for (std::uint32_t lane = 0; lane < kLanes64; ++lane) order[lane] = lane / 2 + lane % 2 * (kLanes64 / 2);
    const auto permuted = hn::TableLookupLanes(hn::LoadU(d32, words + i), hn::SetTableIndices(d32, order));
    const auto code = unpack_int4(d64, hn::PromoteTo(d64, permuted));
    const auto low = hn::TableLookupBytes(hn::LoadDup128(d8, low_bytes), code);
    const auto high = hn::TableLookupBytes(hn::LoadDup128(d8, high_bytes), code);
    auto* out = reinterpret_cast<std::uint8_t*>(y + i * 8);
    put<Stream>(hn::InterleaveLower(d8, low, high), d8, out);
    put<Stream>(hn::InterleaveUpper(d8, low, high), d8, out + hn::MaxLanes(d8));
  });
}

template <bool Stream, class T>
void decode_int4(const char* data, int dim, core::QuantParam<T> p, T* y) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(data);
  if constexpr (sizeof(T) == 2) {
    alignas(16) static constexpr std::uint8_t kCodes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    T values[16];
    decode_bytes<false>(kCodes, 16, p, values);
    look_up_int4<Stream>(words, dim / 8, values, y);
  } else {
    alignas(64) std::uint8_t code[kMaxDim];
    for_units(dim / 8, [&](auto d64, int i) {
      const hn::Rebind<std::uint32_t, decltype(d64)> d32;
      const hn::Repartition<std::uint8_t, decltype(d64)> d8;
      hn::StoreU(unpack_int4(d64, hn::PromoteTo(d64, hn::LoadU(d32, words + i))), d8, code + i * 8);
    });
    decode_bytes<Stream>(code, dim, p, y);
  }
}

template <class T, KvType Kv, bool Stream>
void read_each(const ReadRows& r) {
  for (std::int32_t row = 0; row < r.rows; ++row) {
    const char* data = r.data + row * r.data_stride;
    auto* y = reinterpret_cast<T*>(static_cast<char*>(r.y) + row * r.y_stride);
    if constexpr (Kv == KvType::same) {
      copy_row<Stream>(data, r.dim * static_cast<std::int64_t>(sizeof(T)), y);
    } else {
      core::QuantParam<T> p;
      std::memcpy(&p, r.param + row * r.param_stride, sizeof(p));
      if constexpr (Kv == KvType::int8) {
        decode_bytes<Stream>(reinterpret_cast<const std::uint8_t*>(data), r.dim, p, y);
      } else {
        decode_int4<Stream>(data, r.dim, p, y);
      }
    }
  }
}

template <class T, KvType Kv>
void read_rows(const ReadRows& r) {
  const bool stream = r.stream && fills_lines(r.y, r.y_stride, r.dim * static_cast<std::int64_t>(sizeof(T)));
  stream ? read_each<T, Kv, true>(r) : read_each<T, Kv, false>(r);
}

const ReadKernels kRead = {
    .read = {{read_rows<float, KvType::same>, read_rows<float, KvType::int8>, read_rows<float, KvType::int4>},
             {read_rows<half_t, KvType::same>, read_rows<half_t, KvType::int8>, read_rows<half_t, KvType::int4>},
             {read_rows<bfloat16_t, KvType::same>, read_rows<bfloat16_t, KvType::int8>,
              read_rows<bfloat16_t, KvType::int4>}},
    .finish = hwy::FlushStream};

}  // namespace pagedkv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // PAGEDKV_SIMD_PASS

#if HWY_ONCE
namespace pagedkv::cpu {

const ReadKernels& read_kernels(Target target) {
  switch (target) {
#if HWY_TARGETS & HWY_AVX3
    case Target::avx512vnni:
    case Target::avx512:
      return N_AVX3::kRead;
#endif
#if HWY_TARGETS & HWY_AVX2
    case Target::avx2:
      return N_AVX2::kRead;
#endif
#if HWY_TARGETS & HWY_NEON
    case Target::neon:
      return N_NEON::kRead;
#endif
    default:
      return kScalarReadKernels;
  }
}

}  // namespace pagedkv::cpu
#endif  // HWY_ONCE
