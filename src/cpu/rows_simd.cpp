// The row loops of rows.h for every SIMD target. Scalar code of rows_scalar.cpp says what the results are; comments
// here say why the same bits come out.

#include <algorithm>
#include <cstring>

#include "cpu/rows.h"
#include "pagedkv/core/half.h"
#include "pagedkv/core/quant.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rows_simd.cpp"
#include <hwy/foreach_target.h>  // includes this file again for every target
#include <hwy/highway.h>
#include "cpu/highway_targets.h"

#if PAGEDKV_SIMD_PASS
HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr int kMaxDim = 1024;

using FloatTag = hn::ScalableTag<float>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(FloatTag()));
static_assert(kLanes <= 16, "rows are multiples of 16 elements");

// ---- elements of T

template <class DF>
hn::Vec<DF> load(DF df, const float* p) {
  return hn::LoadU(df, p);
}
template <class DF>
hn::Vec<DF> load(DF df, const half_t* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}
template <class DF>
hn::Vec<DF> load(DF df, const bfloat16_t* p) {
  const hn::Rebind<hwy::bfloat16_t, DF> d16;
  return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::bfloat16_t*>(p)));
}

/// Every NaN made the one that from_float() gives.
template <class DF>
hn::Vec<DF> canonical(DF df, hn::Vec<DF> x) {
  const auto nan = hn::BitCast(df, hn::Set(hn::RebindToUnsigned<DF>(), 0x7fffffffu));
  return hn::IfThenElse(hn::IsNaN(x), nan, x);
}

// from_float() and a store.
template <class DF>
void store(DF df, hn::Vec<DF> x, float* p) {
  hn::StoreU(canonical(df, x), df, p);
}
template <class DF>
void store(DF df, hn::Vec<DF> x, half_t* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  hn::StoreU(hn::DemoteTo(d16, canonical(df, x)), d16, reinterpret_cast<hwy::float16_t*>(p));
}
template <class DF>
void store(DF df, hn::Vec<DF> x, bfloat16_t* p) {
  const hn::RebindToUnsigned<DF> du;
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<std::uint16_t, DF> d16;
  const auto u = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, hn::Set(du, 0x7fffu)), odd));
  const auto nan = hn::RebindMask(du, hn::IsNaN(x));
  const auto bits = hn::IfThenElse(nan, hn::Set(du, 0x7fffu), rounded);
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, bits)), d16, reinterpret_cast<std::uint16_t*>(p));
}

// ---- writing

template <class T>
void load_row(const T* x, const T* bias, int dim, float* out) {
  const FloatTag df;
  if (bias == nullptr) {
    for (int d = 0; d < dim; d += kLanes) hn::Store(load(df, x + d), df, out + d);
  } else {
    for (int d = 0; d < dim; d += kLanes) hn::Store(hn::Add(load(df, x + d), load(df, bias + d)), df, out + d);
  }
}

/// core::rotate() of the pairs of a row: fma(cos, x, sin * partner).
template <class DF>
void rotate_interleaved(DF df, const RotationRow& r, int dim, float* x) {
  const int step = static_cast<int>(hn::Lanes(df));
  for (int d = 0; d < dim; d += step) {
    const auto v = hn::LoadU(df, x + d);
    const auto product = hn::Mul(hn::LoadU(df, r.sin + d), hn::Shuffle2301(v));
    hn::StoreU(hn::MulAdd(hn::LoadU(df, r.cos + d), v, product), df, x + d);
  }
}

template <class DF>
void rotate_half_split(DF df, const RotationRow& r, int dim, float* x) {
  const int step = static_cast<int>(hn::Lanes(df));
  const int half = dim / 2;
  for (int d = 0; d < half; d += step) {
    const auto a = hn::LoadU(df, x + d);
    const auto b = hn::LoadU(df, x + half + d);
    const auto cos = hn::LoadU(df, r.cos + d);
    const auto sin = hn::LoadU(df, r.sin + half + d);  // without the minus sign
    hn::StoreU(hn::MulSub(cos, a, hn::Mul(sin, b)), df, x + d);
    hn::StoreU(hn::MulAdd(cos, b, hn::Mul(sin, a)), df, x + half + d);
  }
}

void rotate_row(const WriteRows& w, float* x) {
  const hn::CappedTag<float, 8> d8;
  if (w.pairs == RopePairs::interleaved) {
    if (w.rope_dim % kLanes == 0) {
      rotate_interleaved(FloatTag(), *w.rotation, w.rope_dim, x);
    } else {
      rotate_interleaved(d8, *w.rotation, w.rope_dim, x);
    }
  } else if (w.rope_dim / 2 % kLanes == 0) {
    rotate_half_split(FloatTag(), *w.rotation, w.rope_dim, x);
  } else {
    rotate_half_split(d8, *w.rotation, w.rope_dim, x);
  }
}

/// Parameters of a row. Which of +0 and -0 the vector minimum prefers does not matter: adding +0 makes both +0, and
/// the difference of minimum and maximum is the same.
template <class T, int Bits>
core::QuantParam<T> row_param(const float* x, int dim) {
  const FloatTag df;
  auto mn = hn::Load(df, x);
  auto mx = mn;
  auto nan = hn::IsNaN(mn);
  for (int d = kLanes; d < dim; d += kLanes) {
    const auto v = hn::Load(df, x + d);
    mn = hn::Min(mn, v);
    mx = hn::Max(mx, v);
    nan = hn::Or(nan, hn::IsNaN(v));
  }
  float low = hn::GetLane(hn::MinOfLanes(df, mn));
  float high = hn::GetLane(hn::MaxOfLanes(df, mx));
  if (!hn::AllFalse(df, nan)) low = high = core::bits_as<float>(0x7fffffffu);
  return core::quant_param<T, Bits>(core::add_rn(low, 0.0F), core::add_rn(high, 0.0F));
}

/// Codes of kLanes elements in the low bits of 32-bit lanes. The row is finite, so no NaN reaches the clamps.
template <int Bits>
hn::Vec<hn::RebindToUnsigned<FloatTag>> encode(hn::Vec<FloatTag> x, hn::Vec<FloatTag> zero, hn::Vec<FloatTag> inv) {
  const FloatTag df;
  const hn::RebindToUnsigned<FloatTag> du;
  const auto lowest = hn::Set(df, core::kRoundMagic);
  const auto highest = hn::Set(df, core::kRoundMagic + core::kMaxCode<Bits>);
  const auto r = hn::MulAdd(hn::Sub(x, zero), inv, lowest);
  const auto clamped = hn::Min(hn::Max(r, lowest), highest);
  return hn::And(hn::BitCast(du, clamped), hn::Set(du, (1u << Bits) - 1u));
}

/// Packs 16 codes, a byte each, into two words of core::pack_int4() order.
void pack_int4(const std::uint8_t* code, char* out) {
  const hn::Full128<std::uint8_t> d8;
  const hn::Full128<std::uint32_t> d32;
  // Four bytes e0 e1 e2 e3 of a 32-bit lane, or-ed with themselves moved by 12 bits, start with e0|e2<<4, e1|e3<<4.
  const auto v = hn::BitCast(d32, hn::Load(d8, code));
  const auto pairs = hn::BitCast(d8, hn::Or(v, hn::ShiftRight<12>(v)));
  alignas(16) static constexpr std::uint8_t kOrder[16] = {0, 4, 1, 5, 8, 12, 9, 13};
  const hn::Half<decltype(d8)> half;
  hn::StoreU(hn::LowerHalf(half, hn::TableLookupBytes(pairs, hn::Load(d8, kOrder))), half,
             reinterpret_cast<std::uint8_t*>(out));
}

template <class T, int Bits>
void encode_row(const float* x, int dim, char* data, char* param) {
  const core::QuantParam<T> p = row_param<T, Bits>(x, dim);
  std::memcpy(param, &p, sizeof(p));
  const core::RowEncoder e = core::row_encoder(p);
  if (e.inv == 0.0F) {  // all codes are 0, in rows with NaN too
    std::memset(data, 0, static_cast<std::size_t>(dim * Bits / 8));
    return;
  }
  const FloatTag df;
  const hn::Rebind<std::uint8_t, FloatTag> d8;
  const auto zero = hn::Set(df, e.zero);
  const auto inv = hn::Set(df, e.inv);
  if constexpr (Bits == 8) {
    for (int d = 0; d < dim; d += kLanes) {
      const auto codes = encode<Bits>(hn::Load(df, x + d), zero, inv);
      hn::StoreU(hn::U8FromU32(codes), d8, reinterpret_cast<std::uint8_t*>(data) + d);
    }
  } else {
    alignas(64) std::uint8_t code[kMaxDim];
    for (int d = 0; d < dim; d += kLanes) {
      hn::Store(hn::U8FromU32(encode<Bits>(hn::Load(df, x + d), zero, inv)), d8, code + d);
    }
    for (int d = 0; d < dim; d += 16) pack_int4(code + d, data + d / 2);
  }
}

template <class T, KvType Kv>
void write_rows(const WriteRows& w) {
  alignas(64) float x[kMaxDim];
  const FloatTag df;
  for (std::int32_t row = 0; row < w.rows; ++row) {
    const char* from = static_cast<const char*>(w.x) + row * w.x_stride;
    char* data = w.data + row * w.data_stride;
    if (Kv == KvType::same && w.bias == nullptr && w.rotation == nullptr) {
      std::memmove(data, from, static_cast<std::size_t>(w.dim) * sizeof(T));
      continue;
    }
    const T* bias = w.bias == nullptr ? nullptr : static_cast<const T*>(w.bias) + std::int64_t{row} * w.dim;
    load_row(reinterpret_cast<const T*>(from), bias, w.dim, x);
    if (w.rotation != nullptr) rotate_row(w, x);
    if constexpr (Kv == KvType::same) {
      for (int d = 0; d < w.dim; d += kLanes) store(df, hn::Load(df, x + d), reinterpret_cast<T*>(data) + d);
    } else {
      encode_row<T, Kv == KvType::int8 ? 8 : 4>(x, w.dim, data, w.param + row * w.param_stride);
    }
  }
}

// ---- reading

/// How code * scale + zero of a row of T can be computed in float32 and rounded to T only once.
enum class Decoding : std::uint8_t {
  exact,   ///< the float32 fma is exact for every code
  odd,     ///< by core::detail::fma_odd(), nothing overflows
  scalar,  ///< anything else: NaN, infinity, overflow
};

/// A sum of multiples of 2^lsb below 2^(lsb + 24) is exact in float32. A T has `Digits` digits, a code 8 bits.
template <int Digits>
Decoding decoding(float scale, float zero) {
  if (scale == 0.0F || zero == 0.0F)
    return core::sub_rn(scale + zero, scale + zero) == 0.0F ? Decoding::exact : Decoding::scalar;
  const auto exponent = [](float x) { return static_cast<int>(core::bits_as<std::uint32_t>(x) >> 23 & 0xffu); };
  const int s = exponent(scale);
  const int z = exponent(zero);
  if (std::max(s + 9, z + 1) > 253) return Decoding::scalar;
  // |code * scale| < 2^(s+9), |zero| < 2^(z+1), their sum below twice the larger; last digits at s and z - (Digits -
  // 1). Subnormal numbers of T that are normal floats only have later last digits.
  const bool exact = std::min(s, z) > 0 && std::max(s + 9, z + 1) + 1 - (std::min(s, z) - (Digits - 1)) <= 24;
  return exact ? Decoding::exact : Decoding::odd;
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

template <class T>
constexpr int kDigits = dtype_of<T> == DType::f16 ? 11 : 8;

/// Bytes of codes to T.
template <class T>
void decode_bytes(const std::uint8_t* code, int dim, core::QuantParam<T> p, T* y) {
  const FloatTag df;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<std::uint8_t, FloatTag> d8;
  const float scale = core::to_float(p.scale);
  const float zero = core::to_float(p.zero);
  const auto v_scale = hn::Set(df, scale);
  const auto v_zero = hn::Set(df, zero);
  const Decoding how = dtype_of<T> == DType::f32 ? Decoding::exact : decoding<kDigits<T>>(scale, zero);
  const auto value = [&](int d) { return hn::ConvertTo(df, hn::PromoteTo(di, hn::LoadU(d8, code + d))); };
  switch (how) {
    case Decoding::exact:
      for (int d = 0; d < dim; d += kLanes) store(df, hn::MulAdd(value(d), v_scale, v_zero), y + d);
      return;
    case Decoding::odd:
      for (int d = 0; d < dim; d += kLanes) store(df, fma_odd(df, value(d), v_scale, v_zero), y + d);
      return;
    case Decoding::scalar:
      for (int d = 0; d < dim; ++d) y[d] = core::decode(static_cast<std::uint32_t>(code[d]), p);
      return;
  }
}

/// Codes of words of 8, one byte each in element order. `words` fills D's 64-bit lanes a whole number of times.
/// Lane i of a vector takes word order(i).
template <class D64>
auto unpack_int4(D64 d64, const std::uint32_t* words) {
  const hn::Rebind<std::uint32_t, D64> d32;
  const hn::Repartition<std::uint8_t, D64> d8;
  const hn::Repartition<std::uint16_t, D64> d16;
  const auto w = hn::BitCast(d8, hn::PromoteTo(d64, hn::LoadU(d32, words)));
  // Bytes e0|e2<<4, e4|e6<<4, e1|e3<<4, e5|e7<<4 of a word, spread so that every second pair wants its high nibbles.
  alignas(16) static constexpr std::uint8_t kSpread[16] = {0, 2, 0, 2, 1, 3, 1, 3, 8, 10, 8, 10, 9, 11, 9, 11};
  alignas(16) static constexpr std::uint8_t kHigh[16] = {0, 0, 255, 255, 0, 0, 255, 255,
                                                         0, 0, 255, 255, 0, 0, 255, 255};
  const auto spread = hn::TableLookupBytes(w, hn::LoadDup128(d8, kSpread));
  const auto high = hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, spread)));
  const auto nibble = hn::IfVecThenElse(hn::LoadDup128(d8, kHigh), high, spread);
  return hn::And(nibble, hn::Set(d8, std::uint8_t{15}));
}

/// Bytes of the 16 values that a row's codes have, low and high ones apart.
struct ValueTable {
  alignas(16) std::uint8_t low[16];
  alignas(16) std::uint8_t high[16];
};

/// Looks up as many words as fit into vectors of D64; returns how many.
template <class D64>
int decode_words(D64 d64, const std::uint32_t* words, int count, const ValueTable& table, std::uint16_t* y) {
  const hn::Repartition<std::uint8_t, D64> d8;
  const hn::Repartition<std::uint16_t, D64> d16;
  const int step = static_cast<int>(hn::Lanes(d64));
  const auto low = hn::LoadDup128(d8, table.low);
  const auto high = hn::LoadDup128(d8, table.high);
  int i = 0;
  for (; i + step <= count; i += step) {
    const auto code = unpack_int4(d64, words + i);
    const auto a = hn::TableLookupBytes(low, code);
    const auto b = hn::TableLookupBytes(high, code);
    // Each 128-bit block has two words; the first ones of all blocks, then the second ones.
    alignas(64) std::uint16_t first[hn::MaxLanes(d16)];
    alignas(64) std::uint16_t second[hn::MaxLanes(d16)];
    hn::Store(hn::BitCast(d16, hn::InterleaveLower(d8, a, b)), d16, first);
    hn::Store(hn::BitCast(d16, hn::InterleaveUpper(d8, a, b)), d16, second);
    for (int block = 0; block < step / 2; ++block) {
      std::memcpy(y + (i + 2 * block) * 8, first + block * 8, 16);
      std::memcpy(y + (i + 2 * block + 1) * 8, second + block * 8, 16);
    }
  }
  return i;
}

template <class T>
void decode_int4(const char* data, int dim, core::QuantParam<T> p, T* y) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(data);
  const int count = dim / 8;
  if constexpr (sizeof(T) == 2) {
    alignas(16) static constexpr std::uint8_t kCodes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    T value[16];
    decode_bytes(kCodes, 16, p, value);
    ValueTable table;
    for (int i = 0; i < 16; ++i) {
      table.low[i] = static_cast<std::uint8_t>(value[i].bits);
      table.high[i] = static_cast<std::uint8_t>(value[i].bits >> 8);
    }
    auto* out = reinterpret_cast<std::uint16_t*>(y);
    int done = decode_words(hn::ScalableTag<std::uint64_t>(), words, count, table, out);
    done += decode_words(hn::CappedTag<std::uint64_t, 4>(), words + done, count - done, table, out + done * 8);
    decode_words(hn::Full128<std::uint64_t>(), words + done, count - done, table, out + done * 8);
  } else {
    const hn::Full128<std::uint64_t> d64;
    const hn::Full128<std::uint8_t> d8;
    alignas(64) std::uint8_t code[kMaxDim];
    for (int i = 0; i < count; i += 2) hn::Store(unpack_int4(d64, words + i), d8, code + i * 8);
    decode_bytes(code, dim, p, y);
  }
}

template <class T, KvType Kv>
void read_rows(const ReadRows& r) {
  if (Kv == KvType::same && r.data_stride == r.y_stride && r.y_stride == r.dim * static_cast<int>(sizeof(T))) {
    std::memcpy(r.y, r.data, static_cast<std::size_t>(r.rows * r.y_stride));
    return;
  }
  for (std::int32_t row = 0; row < r.rows; ++row) {
    const char* data = r.data + row * r.data_stride;
    auto* y = reinterpret_cast<T*>(static_cast<char*>(r.y) + row * r.y_stride);
    if constexpr (Kv == KvType::same) {
      std::memcpy(y, data, static_cast<std::size_t>(r.dim) * sizeof(T));
      continue;
    }
    core::QuantParam<T> p;
    std::memcpy(&p, r.param + row * r.param_stride, sizeof(p));
    if constexpr (Kv == KvType::int8) decode_bytes(reinterpret_cast<const std::uint8_t*>(data), r.dim, p, y);
    if constexpr (Kv == KvType::int4) decode_int4(data, r.dim, p, y);
  }
}

// ---- sine and cosine

/// core::sincos_turn() times `factor`, step by step. `pairs` is a multiple of D's lanes.
template <class DF>
void rotation_rows(DF df, const std::uint32_t* phase, int pairs, RopePairs order, float factor, RotationRow& out) {
  const hn::RebindToUnsigned<DF> du;
  const hn::RebindToSigned<DF> di;
  const auto constant = [&](float x) { return hn::Set(df, x); };
  const auto one = hn::Set(du, 1u);
  for (int i = 0; i < pairs; i += static_cast<int>(hn::Lanes(df))) {
    const auto p = hn::LoadU(du, phase + i);
    const auto quadrant = hn::ShiftRight<30>(hn::Add(p, hn::Set(du, 0x20000000u)));
    const auto r = hn::BitCast(di, hn::Sub(p, hn::ShiftLeft<30>(quadrant)));
    const auto x = hn::Mul(hn::ConvertTo(df, r), constant(1.462918119976564e-9F));
    const auto x2 = hn::Mul(x, x);
    auto s = hn::MulAdd(constant(-0.000194956359337084F), x2, constant(0.00833197869360447F));
    s = hn::MulAdd(s, x2, constant(-0.16666650772094727F));
    s = hn::MulAdd(hn::Mul(s, x2), x, x);
    auto c = hn::MulAdd(constant(2.4390450562350452e-05F), x2, constant(-0.0013886763481423259F));
    c = hn::MulAdd(c, x2, constant(0.04166662320494652F));
    c = hn::MulAdd(c, x2, constant(-0.5F));
    c = hn::MulAdd(c, x2, constant(1.0F));
    const auto swap = hn::RebindMask(df, hn::Eq(hn::And(quadrant, one), one));
    const auto sign = hn::Set(du, 0x80000000u);
    const auto sin_sign = hn::BitCast(df, hn::And(hn::ShiftLeft<30>(quadrant), sign));
    const auto cos_sign = hn::BitCast(df, hn::And(hn::ShiftLeft<30>(hn::Add(quadrant, one)), sign));
    const auto sin = hn::Mul(hn::Xor(hn::IfThenElse(swap, c, s), sin_sign), constant(factor));
    const auto cos = hn::Mul(hn::Xor(hn::IfThenElse(swap, s, c), cos_sign), constant(factor));
    if (order == RopePairs::interleaved) {
      hn::StoreInterleaved2(cos, cos, df, out.cos + 2 * i);
      hn::StoreInterleaved2(hn::Neg(sin), sin, df, out.sin + 2 * i);
    } else {
      hn::StoreU(cos, df, out.cos + i);
      hn::StoreU(cos, df, out.cos + pairs + i);
      hn::StoreU(hn::Neg(sin), df, out.sin + i);
      hn::StoreU(sin, df, out.sin + pairs + i);
    }
  }
}

void rotation_row(const std::uint32_t* phase, int pairs, RopePairs order, float factor, RotationRow& out) {
  if (pairs % kLanes == 0) {
    rotation_rows(FloatTag(), phase, pairs, order, factor, out);
  } else if (pairs % 8 == 0) {
    rotation_rows(hn::CappedTag<float, 8>(), phase, pairs, order, factor, out);
  } else {
    rotation_rows(hn::CappedTag<float, 4>(), phase, pairs, order, factor, out);
  }
}

const RowKernels kRows = {
    .write = {{write_rows<float, KvType::same>, write_rows<float, KvType::int8>, write_rows<float, KvType::int4>},
              {write_rows<half_t, KvType::same>, write_rows<half_t, KvType::int8>, write_rows<half_t, KvType::int4>},
              {write_rows<bfloat16_t, KvType::same>, write_rows<bfloat16_t, KvType::int8>,
               write_rows<bfloat16_t, KvType::int4>}},
    .read = {{read_rows<float, KvType::same>, read_rows<float, KvType::int8>, read_rows<float, KvType::int4>},
             {read_rows<half_t, KvType::same>, read_rows<half_t, KvType::int8>, read_rows<half_t, KvType::int4>},
             {read_rows<bfloat16_t, KvType::same>, read_rows<bfloat16_t, KvType::int8>,
              read_rows<bfloat16_t, KvType::int4>}},
    .rotation = rotation_row,
};

}  // namespace pagedkv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // PAGEDKV_SIMD_PASS

#if HWY_ONCE
namespace pagedkv::cpu {

const RowKernels& row_kernels(Target target) {
  switch (target) {
#if HWY_TARGETS & HWY_AVX3
    case Target::avx512:
      return N_AVX3::kRows;
#endif
#if HWY_TARGETS & HWY_AVX2
    case Target::avx2:
      return N_AVX2::kRows;
#endif
#if HWY_TARGETS & HWY_NEON
    case Target::neon:
      return N_NEON::kRows;
#endif
    default:
      return kScalarRows;
  }
}

}  // namespace pagedkv::cpu
#endif  // HWY_ONCE
