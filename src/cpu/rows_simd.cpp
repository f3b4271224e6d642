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

// Rounds numbers and infinities to T as from_float() does, and stores them.
template <class DF>
void store_number(DF df, hn::Vec<DF> x, float* p) {
  hn::StoreU(x, df, p);
}
template <class DF>
void store_number(DF df, hn::Vec<DF> x, half_t* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  hn::StoreU(hn::DemoteTo(d16, x), d16, reinterpret_cast<hwy::float16_t*>(p));
}
template <class DF>
void store_number(DF df, hn::Vec<DF> x, bfloat16_t* p) {
  const hn::RebindToUnsigned<DF> du;
  const hn::RebindToSigned<DF> di;
  const hn::Rebind<std::uint16_t, DF> d16;
  const auto u = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(u), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, hn::Set(du, 0x7fffu)), odd));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(di, rounded)), d16, reinterpret_cast<std::uint16_t*>(p));
}

/// The same for any value: every NaN becomes the one that from_float() gives.
template <class DF, class T>
void store(DF df, hn::Vec<DF> x, T* p) {
  const hn::RebindToUnsigned<DF> du;
  // For bf16 the bits that round_number would not carry beyond those of a NaN.
  const auto nan = hn::BitCast(df, hn::Set(du, dtype_of<T> == DType::bf16 ? 0x7fff0000u : 0x7fffffffu));
  store_number(df, hn::IfThenElse(hn::IsNaN(x), nan, x), p);
}

// ---- writing

/// Rows that are worked on together: the latency of one row's reductions and division hides behind the others.
constexpr int kGroup = 16;
/// Elements of a group, so that it stays in L1.
constexpr int kGroupElements = 8192;
static_assert(kGroup % kLanes == 0 && kGroupElements >= kMaxDim);

/// Calls sink(d, values) for the elements of a row after + bias and rotation, in any order of d, and returns the sink:
/// it is passed by value, so that what it accumulates stays in registers.
template <class T, class Sink>
HWY_INLINE Sink for_row(const WriteRows& w, std::int32_t row, Sink sink) {
  const FloatTag df;
  const T* x = reinterpret_cast<const T*>(static_cast<const char*>(w.x) + row * w.x_stride);
  const T* bias = w.bias == nullptr ? nullptr : static_cast<const T*>(w.bias) + std::int64_t{row} * w.dim;
  const auto value = [&](int d) {
    const auto v = load(df, x + d);
    return bias == nullptr ? v : hn::Add(v, load(df, bias + d));
  };
  const RotationRow* r = w.rotation;
  const int rope_dim = r == nullptr ? 0 : w.rope_dim;
  const int half = rope_dim / 2;
  int d = 0;
  // core::rotate() of each pair, as RotationRow states it.
  if (w.pairs == RopePairs::interleaved && rope_dim % kLanes == 0) {
    for (; d < rope_dim; d += kLanes) {
      const auto v = value(d);
      const auto product = hn::Mul(hn::LoadU(df, r->sin + d), hn::Shuffle2301(v));
      sink(d, hn::MulAdd(hn::LoadU(df, r->cos + d), v, product));
    }
  } else if (w.pairs == RopePairs::half_split && half % kLanes == 0) {
    for (; d < half; d += kLanes) {
      const auto a = value(d);
      const auto b = value(half + d);
      const auto cos = hn::LoadU(df, r->cos + d);
      const auto sin = hn::LoadU(df, r->sin + half + d);  // without the minus sign
      sink(d, hn::MulSub(cos, a, hn::Mul(sin, b)));
      sink(half + d, hn::MulAdd(cos, b, hn::Mul(sin, a)));
    }
    d = rope_dim;
  } else {  // rotated channels that do not fill vectors
    alignas(64) float plain[kMaxDim];
    for (; d < w.dim; d += kLanes) hn::Store(value(d), df, plain + d);
    for (int i = 0; i < half; ++i) {
      const int first = core::pair_first(w.pairs, i);
      const int second = core::pair_second(w.pairs, i, rope_dim);
      const float a = plain[first];
      const float b = plain[second];
      const hn::CappedTag<float, 1> d1;
      const auto cos = hn::Set(d1, r->cos[first]);
      const auto sin = hn::Set(d1, r->sin[second]);
      plain[first] = hn::GetLane(hn::MulSub(cos, hn::Set(d1, a), hn::Mul(sin, hn::Set(d1, b))));
      plain[second] = hn::GetLane(hn::MulAdd(cos, hn::Set(d1, b), hn::Mul(sin, hn::Set(d1, a))));
    }
    for (d = 0; d < w.dim; d += kLanes) sink(d, hn::Load(df, plain + d));
    return sink;
  }
  for (; d < w.dim; d += kLanes) sink(d, value(d));
  return sink;
}

/// Minimum, maximum and what encoding needs of each row of a group.
struct GroupStats {
  alignas(64) float low[kGroup] = {};
  alignas(64) float high[kGroup] = {};
  alignas(64) float zero[kGroup];
  alignas(64) float inv[kGroup];
};

/// A sink that keeps a row as float32 and finds its range.
struct RangeSink {
  using V = hn::Vec<FloatTag>;
  float* x;
  V mn = hn::Set(FloatTag(), core::bits_as<float>(0x7f800000u));
  V mx = hn::Set(FloatTag(), core::bits_as<float>(0xff800000u));
  V finite = hn::Zero(FloatTag());  // becomes NaN with the first NaN or infinity

  void operator()(int d, V v) {
    const FloatTag df;
    hn::Store(v, df, x + d);
    mn = hn::Min(mn, v);
    mx = hn::Max(mx, v);
    finite = hn::MulAdd(v, hn::Zero(df), finite);
  }

  /// Minimum and maximum, both NaN if the row has NaN or infinity: such rows have the same parameters.
  void range(float& low, float& high) const {
    const FloatTag df;
    low = hn::GetLane(hn::MinOfLanes(df, mn));
    high = hn::GetLane(hn::MaxOfLanes(df, mx));
    if (!hn::AllFalse(df, hn::IsNaN(finite))) low = high = core::bits_as<float>(0x7fffffffu);
  }
};

/// core::quant_param() and core::row_encoder() of all rows of a group. Which of +0 and -0 the vector minimum preferred
/// does not matter: adding +0 makes both +0, and the difference of minimum and maximum is the same.
template <class T, int Bits>
void group_params(const WriteRows& w, std::int32_t first, std::int32_t rows, GroupStats& stats) {
  const FloatTag df;
  const auto nothing = hn::Zero(df);
  alignas(64) T scales[kGroup];
  alignas(64) T zeros[kGroup];
  for (int i = 0; i < rows; i += kLanes) {
    const auto low = hn::Add(hn::Load(df, stats.low + i), nothing);
    const auto high = hn::Add(hn::Load(df, stats.high + i), nothing);
    store(df, low, zeros + i);
    store(df, hn::Mul(hn::Sub(high, low), hn::Set(df, core::kStepFactor<Bits>)), scales + i);
    auto z = load(df, zeros + i);
    auto s = load(df, scales + i);
    const auto finite = hn::And(hn::Eq(hn::Sub(z, z), nothing), hn::Eq(hn::Sub(s, s), nothing));
    const auto tiny = hn::Lt(s, hn::Set(df, core::bits_as<float>(0x00200001u)));
    const auto plain = hn::AndNot(tiny, finite);
    z = hn::IfThenElse(finite, z, hn::Set(df, core::bits_as<float>(0x7fffffffu)));
    s = hn::IfThenElseZero(plain, s);
    store(df, z, zeros + i);
    store(df, s, scales + i);
    hn::Store(z, df, stats.zero + i);
    hn::Store(hn::IfThenElseZero(plain, hn::Div(hn::Set(df, 1.0F), s)), df, stats.inv + i);
  }
  for (std::int32_t i = 0; i < rows; ++i) {
    const core::QuantParam<T> p{scales[i], zeros[i]};
    std::memcpy(w.param + (first + i) * w.param_stride, &p, sizeof(p));
  }
}

/// core::encode() of a row into bytes. `inv` is not 0, so the row is finite and no NaN reaches the clamp.
void encode_row(const float* x, int dim, float zero, float inv, std::uint8_t* code) {
  const FloatTag df;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<std::uint8_t, FloatTag> d8;
  const auto v_zero = hn::Set(df, zero);
  const auto v_inv = hn::Set(df, inv);
  const auto magic = hn::Set(df, core::kRoundMagic);
  for (int d = 0; d < dim; d += kLanes) {
    const auto r = hn::Max(hn::MulAdd(hn::Sub(hn::Load(df, x + d), v_zero), v_inv, magic), magic);
    // The bits of positive floats are in order, so the saturating conversion to bytes is the upper clamp.
    const auto above = hn::Sub(hn::BitCast(di, r), hn::BitCast(di, magic));
#if HWY_TARGET == HWY_AVX3
    const hn::Vec<decltype(d8)> bytes{_mm512_cvtusepi32_epi8(above.raw)};  // one instruction instead of Highway's four
#else
    const auto bytes = hn::DemoteTo(d8, above);
#endif
    hn::StoreU(bytes, d8, code + d);
  }
}

/// Runs body(tag, i) over `count` 64-bit units, as many in a vector as fit, with i the first of them. `count` is even.
template <class Body>
void for_units(int count, Body&& body) {
  const hn::ScalableTag<std::uint64_t> full;
  const hn::CappedTag<std::uint64_t, 4> four;
  const hn::Full128<std::uint64_t> two;
  int i = 0;
  for (; i + static_cast<int>(hn::Lanes(full)) <= count; i += static_cast<int>(hn::Lanes(full))) body(full, i);
  for (; i + static_cast<int>(hn::Lanes(four)) <= count; i += static_cast<int>(hn::Lanes(four))) body(four, i);
  for (; i < count; i += 2) body(two, i);
}

/// Packs codes, a byte each, into words of core::pack_int4() order; codes above 15 become 15.
void pack_int4(const std::uint8_t* code, int dim, char* out) {
  for_units(dim / 8, [&](auto d64, int i) {
    const hn::Repartition<std::uint8_t, decltype(d64)> d8;
    const hn::Repartition<std::uint32_t, decltype(d64)> d32;
    const hn::Rebind<std::uint32_t, decltype(d64)> d32_half;
    const auto v = hn::BitCast(d32, hn::Min(hn::LoadU(d8, code + i * 8), hn::Set(d8, std::uint8_t{15})));
    // Four bytes e0 e1 e2 e3 of a 32-bit lane, or-ed with themselves moved by 12 bits, start with e0|e2<<4, e1|e3<<4.
    const auto pairs = hn::BitCast(d8, hn::Or(v, hn::ShiftRight<12>(v)));
    alignas(16) static constexpr std::uint8_t kOrder[16] = {0, 4, 1, 5, 0, 0, 0, 0, 8, 12, 9, 13, 8, 8, 8, 8};
    const auto words = hn::BitCast(d64, hn::TableLookupBytes(pairs, hn::LoadDup128(d8, kOrder)));
    hn::StoreU(hn::TruncateTo(d32_half, words), d32_half, reinterpret_cast<std::uint32_t*>(out) + i);
  });
}

template <class T, int Bits>
void write_quantised(const WriteRows& w) {
  alignas(64) float x[kGroupElements];
  alignas(64) std::uint8_t code[kGroupElements];
  const std::int32_t group = std::min(kGroup, kGroupElements / w.dim);
  for (std::int32_t first = 0; first < w.rows; first += group) {
    const std::int32_t rows = std::min(group, w.rows - first);
    GroupStats stats;
    for (std::int32_t i = 0; i < rows; ++i) {
      for_row<T>(w, first + i, RangeSink{x + i * w.dim}).range(stats.low[i], stats.high[i]);
    }
    group_params<T, Bits>(w, first, rows, stats);
    for (std::int32_t i = 0; i < rows; ++i) {
      char* data = w.data + (first + i) * w.data_stride;
      auto* to = Bits == 8 ? reinterpret_cast<std::uint8_t*>(data) : code + i * w.dim;
      if (stats.inv[i] == 0.0F) {  // all codes are 0, in rows with NaN too
        std::memset(to, 0, static_cast<std::size_t>(w.dim));
      } else {
        encode_row(x + i * w.dim, w.dim, stats.zero[i], stats.inv[i], to);
      }
    }
    if constexpr (Bits == 4) {
      for (std::int32_t i = 0; i < rows; ++i) pack_int4(code + i * w.dim, w.dim, w.data + (first + i) * w.data_stride);
    }
  }
}

template <class T>
void write_same(const WriteRows& w) {
  for (std::int32_t row = 0; row < w.rows; ++row) {
    char* data = w.data + row * w.data_stride;
    if (w.bias == nullptr && w.rotation == nullptr) {
      const char* from = static_cast<const char*>(w.x) + row * w.x_stride;
      std::memmove(data, from, static_cast<std::size_t>(w.dim) * sizeof(T));
    } else {
      for_row<T>(w, row, [data](int d, hn::Vec<FloatTag> v) { store(FloatTag(), v, reinterpret_cast<T*>(data) + d); });
    }
  }
}

template <class T, KvType Kv>
void write_rows(const WriteRows& w) {
  if constexpr (Kv == KvType::same) {
    write_same<T>(w);
  } else {
    write_quantised<T, Kv == KvType::int8 ? 8 : 4>(w);
  }
}

// ---- reading

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
template <class T>
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
      for (int d = 0; d < dim; d += kLanes) store_number(df, hn::MulAdd(value(d), v_scale, v_zero), y + d);
      return;
    case Decoding::odd:
      for (int d = 0; d < dim; d += kLanes) store_number(df, fma_odd(df, value(d), v_scale, v_zero), y + d);
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
template <class T>
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
    hn::StoreU(hn::InterleaveLower(d8, low, high), d8, out);
    hn::StoreU(hn::InterleaveUpper(d8, low, high), d8, out + hn::MaxLanes(d8));
  });
}

template <class T>
void decode_int4(const char* data, int dim, core::QuantParam<T> p, T* y) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(data);
  if constexpr (sizeof(T) == 2) {
    alignas(16) static constexpr std::uint8_t kCodes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    T values[16];
    decode_bytes(kCodes, 16, p, values);
    look_up_int4(words, dim / 8, values, y);
  } else {
    alignas(64) std::uint8_t code[kMaxDim];
    for_units(dim / 8, [&](auto d64, int i) {
      const hn::Rebind<std::uint32_t, decltype(d64)> d32;
      const hn::Repartition<std::uint8_t, decltype(d64)> d8;
      hn::StoreU(unpack_int4(d64, hn::PromoteTo(d64, hn::LoadU(d32, words + i))), d8, code + i * 8);
    });
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
