// Writing rows (rows.h) on every SIMD target. The scalar code of rows_scalar.cpp says what the results are; comments
// here say why the same bits come out.

#include <algorithm>
#include <cstring>

#include "cpu/rows.h"
#include "pagedkv/core/half.h"
#include "pagedkv/core/quant.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/rows_write_simd.cpp"
#include "cpu/highway_targets.h"

#include <hwy/foreach_target.h>  // includes this file again for every target

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "cpu/rows_simd-inl.h"

#if PAGEDKV_SIMD_PASS
HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::HWY_NAMESPACE {

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

/// Range of each row of a group, and what encoding needs of it.
struct GroupStats {
  alignas(64) float low[kGroup] = {};
  alignas(64) float high[kGroup] = {};
  alignas(64) float zero[kGroup];
  alignas(64) float inv[kGroup];
  alignas(64) float in_range[kGroup];  ///< 0 if codes of the row may need clamping
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
    store<false>(df, low, zeros + i);
    store<false>(df, hn::Mul(hn::Sub(high, low), hn::Set(df, core::kStepFactor<Bits>)), scales + i);
    auto z = load(df, zeros + i);
    auto s = load(df, scales + i);
    const auto finite = hn::And(hn::Eq(hn::Sub(z, z), nothing), hn::Eq(hn::Sub(s, s), nothing));
    const auto tiny = hn::Lt(s, hn::Set(df, core::bits_as<float>(0x00200001u)));
    const auto plain = hn::AndNot(tiny, finite);
    z = hn::IfThenElse(finite, z, hn::Set(df, core::bits_as<float>(0x7fffffffu)));
    s = hn::IfThenElseZero(plain, s);
    store<false>(df, z, zeros + i);
    store<false>(df, s, scales + i);
    hn::Store(z, df, stats.zero + i);
    const auto inv = hn::IfThenElseZero(plain, hn::Div(hn::Set(df, 1.0F), s));
    hn::Store(inv, df, stats.inv + i);
    // Every step of encoding is monotonic, so the codes of minimum and maximum bound the others.
    const auto magic = hn::Set(df, core::kRoundMagic);
    const auto first_code = hn::MulAdd(hn::Sub(low, z), inv, magic);
    const auto last_code = hn::MulAdd(hn::Sub(high, z), inv, magic);
    const auto highest = hn::Set(df, core::kRoundMagic + core::kMaxCode<Bits>);
    const auto in_range = hn::And(hn::Ge(first_code, magic), hn::Le(last_code, highest));
    hn::Store(hn::IfThenElseZero(in_range, magic), df, stats.in_range + i);
  }
  for (std::int32_t i = 0; i < rows; ++i) {
    const core::QuantParam<T> p{scales[i], zeros[i]};
    std::memcpy(w.param + (first + i) * w.param_stride, &p, sizeof(p));
  }
}

/// core::encode() of a row into bytes. `inv` is not 0, so the row is finite and no NaN reaches the clamps. Codes of n <
/// 8 bits are clamped to 255 only.
template <bool Stream, bool Clamp>
void encode_row(const float* x, int dim, float zero, float inv, std::uint8_t* code) {
  const FloatTag df;
  const hn::RebindToSigned<FloatTag> di;
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<std::uint8_t, FloatTag> d8;
  using Bytes = hn::Vec<decltype(d8)>;
  const auto v_zero = hn::Set(df, zero);
  const auto v_inv = hn::Set(df, inv);
  const auto magic = hn::Set(df, core::kRoundMagic);
  const auto bytes = [&](int d) -> Bytes {
    const auto r = hn::MulAdd(hn::Sub(hn::Load(df, x + d), v_zero), v_inv, magic);
    if constexpr (!Clamp) return hn::TruncateTo(d8, hn::BitCast(du, r));
    // The bits of positive floats are in order, so the saturating conversion to bytes is the upper clamp.
    const auto above = hn::Sub(hn::BitCast(di, hn::Max(r, magic)), hn::BitCast(di, magic));
#if HWY_TARGET == HWY_AVX3
    return Bytes{_mm512_cvtusepi32_epi8(above.raw)};  // one instruction instead of Highway's four
#else
    return hn::DemoteTo(d8, above);
#endif
  };
  if constexpr (kLanes == 8) {  // two at a time are enough for a streaming store
    const hn::Full128<std::uint8_t> d16;
    for (int d = 0; d < dim; d += 16) put<Stream>(hn::Combine(d16, bytes(d + 8), bytes(d)), d16, code + d);
  } else {
    for (int d = 0; d < dim; d += kLanes) put<Stream>(bytes(d), d8, code + d);
  }
}

/// Packs codes, a byte each, into words of core::pack_int4() order; codes above 15 become 15.
template <bool Stream>
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
    put<Stream>(hn::TruncateTo(d32_half, words), d32_half, reinterpret_cast<std::uint32_t*>(out) + i);
  });
}

template <class T, int Bits, bool Stream>
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
      } else if (stats.in_range[i] != 0.0F) {
        encode_row<Stream && Bits == 8, false>(x + i * w.dim, w.dim, stats.zero[i], stats.inv[i], to);
      } else {
        encode_row<Stream && Bits == 8, true>(x + i * w.dim, w.dim, stats.zero[i], stats.inv[i], to);
      }
    }
    if constexpr (Bits == 4) {
      for (std::int32_t i = 0; i < rows; ++i) {
        pack_int4<Stream>(code + i * w.dim, w.dim, w.data + (first + i) * w.data_stride);
      }
    }
  }
}

template <class T, bool Stream>
void write_same(const WriteRows& w) {
  for (std::int32_t row = 0; row < w.rows; ++row) {
    char* data = w.data + row * w.data_stride;
    if (w.bias == nullptr && w.rotation == nullptr) {
      const char* from = static_cast<const char*>(w.x) + row * w.x_stride;
      copy_row<Stream>(from, w.dim * static_cast<std::int64_t>(sizeof(T)), data);
    } else {
      for_row<T>(w, row,
                 [data](int d, hn::Vec<FloatTag> v) { store<Stream>(FloatTag(), v, reinterpret_cast<T*>(data) + d); });
    }
  }
}

template <class T, KvType Kv>
void write_rows(const WriteRows& w) {
  const bool stream =
      w.stream && fills_lines(w.data, w.data_stride, std::int64_t{w.dim} * kv_bits(Kv, dtype_of<T>) / 8);
  if constexpr (Kv == KvType::same) {
    stream ? write_same<T, true>(w) : write_same<T, false>(w);
  } else {
    constexpr int bits = Kv == KvType::int8 ? 8 : 4;
    stream ? write_quantised<T, bits, true>(w) : write_quantised<T, bits, false>(w);
  }
}

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

const WriteKernels kWrite = {
    .write = {{write_rows<float, KvType::same>, write_rows<float, KvType::int8>, write_rows<float, KvType::int4>},
              {write_rows<half_t, KvType::same>, write_rows<half_t, KvType::int8>, write_rows<half_t, KvType::int4>},
              {write_rows<bfloat16_t, KvType::same>, write_rows<bfloat16_t, KvType::int8>,
               write_rows<bfloat16_t, KvType::int4>}},
    .rotation = rotation_row,
    .finish = hwy::FlushStream};

}  // namespace pagedkv::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // PAGEDKV_SIMD_PASS

#if HWY_ONCE
namespace pagedkv::cpu {

const WriteKernels& write_kernels(Target target) {
  switch (target) {
#if HWY_TARGETS & HWY_AVX3
    case Target::avx512vnni:
    case Target::avx512:
      return N_AVX3::kWrite;
#endif
#if HWY_TARGETS & HWY_AVX2
    case Target::avx2:
      return N_AVX2::kWrite;
#endif
#if HWY_TARGETS & HWY_NEON
    case Target::neon:
      return N_NEON::kWrite;
#endif
    default:
      return kScalarWriteKernels;
  }
}

}  // namespace pagedkv::cpu
#endif  // HWY_ONCE
