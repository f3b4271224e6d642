// Products of codes as dot products of bytes (VPDPBUSD), 64 multiplications an instruction. Included once per SIMD
// target; empty where there is no such instruction.
//
// The float factor of a product (a query, or the weights of a tile) becomes a fixed-point number of 24 bits, relative
// to the largest one in its row, and that three signed bytes, its digits. Codes are used as they are stored. Sums of
// code * digit are exact integers, so their order does not matter, and neither do tokens with weight 0. What is rounded
// is the factor, by 2^-24 of the largest one: no more than float32 sums round.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/attention/problem.h"
#include "cpu/attention/workspace.h"
#include "hwy/highway.h"

#if defined(PAGEDKV_CPU_ATTENTION_INTEGER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PAGEDKV_CPU_ATTENTION_INTEGER_INL_H_
#undef PAGEDKV_CPU_ATTENTION_INTEGER_INL_H_
#else
#define PAGEDKV_CPU_ATTENTION_INTEGER_INL_H_
#endif

#include "cpu/attention/simd-inl.h"
#include "cpu/attention/transpose-inl.h"

#undef PAGEDKV_CPU_ATTENTION_INTEGERS
#define PAGEDKV_CPU_ATTENTION_INTEGERS (HWY_TARGET == HWY_AVX3_DL)

#include "cpu/attention/vnni_target.h"

HWY_BEFORE_NAMESPACE();
namespace pagedkv::cpu::attention {
namespace HWY_NAMESPACE {

/// True if a side stored as `s` is multiplied as integers.
constexpr bool in_integers(Stored s) {
  return PAGEDKV_CPU_ATTENTION_INTEGERS != 0 && is_quantised(s);
}

inline constexpr int kDigits = 3;
inline constexpr std::int32_t kStrip = 32;  ///< tokens whose scores are computed at once

#if PAGEDKV_CPU_ATTENTION_INTEGERS

using VI = hn::Vec<DI>;

/// Largest fixed-point number: its digits, taken from below with carry, fit into signed bytes.
inline constexpr float kLargestFixed = 127.0F * 65536.0F;

/// Below this the largest number of a row counts as 0: its reciprocal would overflow.
inline constexpr float kSmallestScale = 1e-31F;

/// Units of a row's fixed-point numbers.
struct FixedScale {
  float to_fixed;  ///< multiplies the number
  float unit;      ///< multiplies the fixed-point number; NaN if the row has NaN or infinity
};

HWY_INLINE FixedScale fixed_scale(float largest, bool finite) {
  if (!finite) return {0.0F, std::numeric_limits<float>::quiet_NaN()};
  if (largest < kSmallestScale) return {0.0F, 0.0F};
  return {kLargestFixed / largest, largest * (1.0F / kLargestFixed)};
}

/// x as fixed-point numbers, rounded to nearest even.
HWY_INLINE VI to_fixed(VF x, VF scale) {
  return VI{_mm512_cvtps_epi32(hn::Mul(x, scale).raw)};
}

/// Digit i of lane l goes to digits[i * stride + l].
HWY_INLINE void store_digits(VI x, std::uint8_t* digits, std::size_t stride) {
  const DI di;
  const VI half = hn::Set(di, 128);
  const auto put = [&](std::size_t i) HWY_ATTR {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(digits + i * stride), _mm512_cvtepi32_epi8(x.raw));
  };
  put(0);
  x = hn::ShiftRight<8>(hn::Add(x, half));
  put(1);
  x = hn::ShiftRight<8>(hn::Add(x, half));
  put(2);
}

/// Four bytes of p, in every lane.
HWY_INLINE __m512i broadcast4(const std::uint8_t* p) {
  std::int32_t x;
  std::memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}

/// 16 bytes (kHalf: 8, followed by 8 that do not matter) of each of four rows.
template <bool kHalf>
HWY_INLINE __m512i load_four(const char* a, const char* b, const char* c, const char* d) {
  const auto at = [](const char* p) HWY_ATTR {
    const auto* from = reinterpret_cast<const __m128i*>(p);
    return kHalf ? _mm_loadl_epi64(from) : _mm_loadu_si128(from);
  };
  __m512i v = _mm512_castsi128_si512(at(a));
  v = _mm512_inserti32x4(v, at(b), 1);
  v = _mm512_inserti32x4(v, at(c), 2);
  return _mm512_inserti32x4(v, at(d), 3);
}

// ---- keys ----

/// Channel whose code stands at `place` of a turned key, within groups of 8: int4 words come apart into their low and
/// their high nibbles.
template <Stored S>
constexpr std::size_t turned_channel(std::size_t place) {
  constexpr std::size_t kInt4[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  return S == Stored::int4 ? place / 8 * 8 + kInt4[place % 8] : place;
}

/// Vectors of 16 tokens x 4 channels in 16 bytes of 16 keys; kHalf: in 8 bytes.
template <Stored S, bool kHalf>
inline constexpr std::size_t kUnitQuads = (S == Stored::int8 ? 4 : 8) / (kHalf ? 2 : 1);

/// 16 bytes (kHalf: 8) of 16 keys, `stride` bytes apart, as codes [quad of channels][token][4].
template <Stored S, bool kHalf>
HWY_INLINE void load_unit(const char* keys, std::size_t stride, __m512i (&quads)[kUnitQuads<S, kHalf>]) {
  VF v[4];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i) {
    const char* row = keys + i * stride;
    const __m512i x = load_four<kHalf>(row, row + 4 * stride, row + 8 * stride, row + 12 * stride);
    v[i] = VF{_mm512_castsi512_ps(x)};
  }
  swap_lanes<2>(v[0], v[2]);
  swap_lanes<2>(v[1], v[3]);
  swap_lanes<1>(v[0], v[1]);
  swap_lanes<1>(v[2], v[3]);
  const __m512i nibble = _mm512_set1_epi8(0x0f);
  for (std::size_t i = 0; i < (kHalf ? 2 : 4); ++i) {
    const __m512i x = _mm512_castps_si512(v[i].raw);
    if constexpr (S == Stored::int8) {
      quads[i] = x;
    } else {
      quads[2 * i] = _mm512_and_si512(x, nibble);
      quads[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi32(x, 4), nibble);
    }
  }
}

/// sum += codes . digits, by fours of unsigned and signed bytes. Not the intrinsic, for which g++ 12 copies every sum
/// twice in a loop.
HWY_INLINE void add_dot4(__m512i& sum, __m512i codes, __m512i digits) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(digits));
}

/// The same for four bytes of digits in memory.
HWY_INLINE void add_dot4(__m512i& sum, __m512i codes, const std::uint8_t* digits) {
  struct Four {
    std::uint8_t bytes[4];
  };
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(codes), "m"(*reinterpret_cast<const Four*>(digits)));
}

/// One step of R x N sums of products of four bytes: sums[r][i][n] += codes[n] . digit i of row r; digits are at
/// digits + r * kRow + i * kDigit. Compile-time recursion, since g++ 12 keeps the sums of the equivalent loops in
/// memory.
template <std::size_t kStep, std::size_t R, std::size_t N, std::size_t kRow, std::size_t kDigit>
HWY_INLINE void add_products(__m512i (&sums)[R * kDigits * N], const __m512i (&codes)[N], const std::uint8_t* digits) {
  static_assert(N == 1 || N == 2);
  if constexpr (kStep < R * kDigits) {
    const std::uint8_t* at = digits + kStep / kDigits * kRow + kStep % kDigits * kDigit;
    if constexpr (N == 1) {
      add_dot4(sums[kStep], codes[0], at);
    } else {
      const __m512i four = broadcast4(at);
      add_dot4(sums[kStep * N], codes[0], four);
      add_dot4(sums[kStep * N + 1], codes[1], four);
    }
    add_products<kStep + 1, R, N, kRow, kDigit>(sums, codes, digits);
  }
}

// Digits of the queries of kRowsAtOnce rows: [quad of channels][row][digit][4], so that they are at fixed distances.
inline constexpr std::size_t kQueryDigit = 4;
inline constexpr std::size_t kQueryRow = kDigits * kQueryDigit;
inline constexpr std::size_t kQueryQuad = kRowsAtOnce * kQueryRow;
// Digits of the weights of a row: [digit][kTile], in place of its weights.
inline constexpr std::size_t kWeightDigit = kTile;
inline constexpr std::size_t kWeightRow = kTile * sizeof(float);

/// Where the digits of row r's query begin, of rows with dim channels; kRowsAtOnce rows lie in the memory of as many
/// float rows.
HWY_INLINE std::uint8_t* query_digits(float* q, std::size_t dim, std::size_t r) {
  return reinterpret_cast<std::uint8_t*>(q + r / kRowsAtOnce * kRowsAtOnce * dim) + r % kRowsAtOnce * kQueryRow;
}

/// Value of the sums of row r, vector n, in units.
template <std::size_t R, std::size_t N>
HWY_INLINE VF join_digits(const __m512i (&sums)[R * kDigits * N], std::size_t r, std::size_t n) {
  const DF df;
  const auto digit = [&](std::size_t i) HWY_ATTR { return hn::ConvertTo(df, VI{sums[(r * kDigits + i) * N + n]}); };
  const VF low = hn::MulAdd(digit(1), hn::Set(df, 256.0F), digit(0));
  return hn::MulAdd(digit(2), hn::Set(df, 65536.0F), low);
}

/// Keys of a tile: groups of 16 tokens, each with its rows `stride` bytes apart.
struct KeyGroups {
  const char* first[kTile / 16];
  std::size_t stride;
};

/// Turns the groups that have keys of [first, last) into out[kTile / kStrip][dim / 4][kStrip][4].
template <Stored S>
HWY_NOINLINE void turn_keys(const KeyGroups& keys, std::size_t first, std::size_t last, std::size_t dim,
                            std::uint8_t* out) {
  const std::size_t bytes = dim * stored_bits(S) / 8;
  for (std::size_t t = first / 16 * 16; t < last; t += 16) {
    const char* from = keys.first[t / 16];
    std::uint8_t* to = out + t / kStrip * kStrip * dim + t % kStrip * 4;
    const auto put = [&](const auto& quads) HWY_ATTR {
      for (const __m512i x : quads) {
        _mm512_store_si512(to, x);
        to += kStrip * 4;
      }
    };
    std::size_t at = 0;
    for (; at + 16 <= bytes; at += 16) {
      __m512i quads[kUnitQuads<S, false>];
      load_unit<S, false>(from + at, keys.stride, quads);
      put(quads);
    }
    if (at < bytes) {
      __m512i quads[kUnitQuads<S, true>];
      load_unit<S, true>(from + at, keys.stride, quads);
      put(quads);
    }
  }
}

/// Scores of R rows with the kStrip turned keys at k: s[r][..], rows of kTile. `q` are the rows' digits.
template <std::size_t R>
HWY_NOINLINE void integer_scores(const std::uint8_t* q, const float* units, std::size_t dim, const std::uint8_t* k,
                                 float* s) {
  constexpr std::size_t kGroups = kStrip / 16;
  __m512i sums[R * kDigits * kGroups];
#pragma GCC unroll 32
  for (__m512i& x : sums) x = _mm512_setzero_si512();
  const std::uint8_t* end = k + dim * kStrip;
  do {  // dim is not 0
    const __m512i codes[kGroups] = {_mm512_load_si512(k), _mm512_load_si512(k + 64)};
    add_products<0, R, kGroups, kQueryRow, kQueryDigit>(sums, codes, q);
    k += kStrip * 4;
    q += kQueryQuad;
  } while (k < end);
#pragma GCC unroll 4
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (std::size_t g = 0; g < kGroups; ++g) {
      hn::Store(hn::Mul(join_digits<R, kGroups>(sums, r, g), hn::Set(DF(), units[r])), DF(), s + r * kTile + g * 16);
    }
  }
}

/// Adds the products of a unit's codes and the digits of R rows; returns the digits of the next unit.
template <Stored S, bool kHalf, std::size_t R>
HWY_INLINE const std::uint8_t* add_unit(__m512i (&sums)[R * kDigits], const char* keys, std::size_t stride,
                                        const std::uint8_t* q) {
  __m512i quads[kUnitQuads<S, kHalf>];
  load_unit<S, kHalf>(keys, stride, quads);
#pragma GCC unroll 8
  for (const __m512i x : quads) {
    add_products<0, R, 1, kQueryRow, kQueryDigit>(sums, {x}, q);
    q += kQueryQuad;
  }
  return q;
}

/// Scores of R rows with the groups that have keys of [first, last): s[r][t], rows of kTile. As integer_scores(), but
/// of keys as they are stored.
template <Stored S, std::size_t R>
HWY_NOINLINE void direct_integer_scores(const std::uint8_t* q, const float* units, std::size_t dim,
                                        const KeyGroups& keys, std::size_t first, std::size_t last, float* s,
                                        const Ahead& ahead) {
  const std::size_t bytes = dim * stored_bits(S) / 8;
  Prefetcher near(ahead, (last + 15) / 16 - first / 16, (bytes + 15) / 16);
  for (std::size_t t = first / 16 * 16; t < last; t += 16) {
    __m512i sums[R * kDigits];
#pragma GCC unroll 12
    for (__m512i& x : sums) x = _mm512_setzero_si512();
    const char* from = keys.first[t / 16];
    const std::uint8_t* digits = q;
    std::size_t at = 0;
    for (; at + 16 <= bytes; at += 16) {
      near.step();
      digits = add_unit<S, false, R>(sums, from + at, keys.stride, digits);
    }
    if (at < bytes) add_unit<S, true, R>(sums, from + at, keys.stride, digits);
#pragma GCC unroll 4
    for (std::size_t r = 0; r < R; ++r) {
      hn::Store(hn::Mul(join_digits<R, 1>(sums, r, 0), hn::Set(DF(), units[r])), DF(), s + r * kTile + t);
    }
  }
}

// ---- values ----

/// Where the bytes of 16 channels of four rows come from: byte 4 d + r is in row r (16 bytes each).
struct QuadOrder {
  alignas(64) std::uint8_t from[64];
  alignas(64) std::int32_t shift[16];  ///< of channel d's nibble in its byte
};

/// `half`: which 16 of the 32 int4 channels in 16 bytes.
template <Stored S>
constexpr QuadOrder quad_order(int half) {
  QuadOrder order{};
  for (int d = 0; d < 16; ++d) {
    const int nibble = d % 8 / 2 + d % 2 * 4;  // of a word: e0 e2 e4 e6 e1 e3 e5 e7
    const int byte = S == Stored::int8 ? d : 8 * half + d / 8 * 4 + nibble / 2;
    order.shift[d] = S == Stored::int8 ? 0 : nibble % 2 * 4;
    for (int r = 0; r < 4; ++r) order.from[4 * d + r] = static_cast<std::uint8_t>(16 * r + byte);
  }
  return order;
}

template <Stored S>
inline constexpr QuadOrder kQuadOrder[2] = {quad_order<S>(0), quad_order<S>(1)};

/// 16 channels of four tokens as [channel][token].
template <Stored S, int kHalf>
HWY_INLINE __m512i quad_of(__m512i rows) {
  const QuadOrder& order = kQuadOrder<S>[kHalf];
  __m512i x = _mm512_permutexvar_epi8(_mm512_load_si512(order.from), rows);
  if constexpr (S == Stored::int4) {
    x = _mm512_and_si512(_mm512_srlv_epi32(x, _mm512_load_si512(order.shift)), _mm512_set1_epi8(0x0f));
  }
  return x;
}

/// 16 N channels from channel 16 * vec on, of the four rows at `rows`.
template <Stored S, std::size_t N>
HWY_INLINE void load_quads(const char* const* rows, std::size_t vec, __m512i (&quads)[N]) {
  if constexpr (S == Stored::int8) {
#pragma GCC unroll 2
    for (std::size_t n = 0; n < N; ++n) {
      const std::size_t at = (vec + n) * 16;
      quads[n] = quad_of<S, 0>(load_four<false>(rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at));
    }
  } else {
    const std::size_t at = vec * 8;
    if constexpr (N == 2) {
      const __m512i x = load_four<false>(rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at);
      quads[0] = quad_of<S, 0>(x);
      quads[1] = quad_of<S, 1>(x);
    } else {
      quads[0] = quad_of<S, 0>(load_four<true>(rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at));
    }
  }
}

/// Turns the values [first, last) of a tile, at least, into out[kTile / 4][dim][4].
template <Stored S>
HWY_NOINLINE void turn_values(const char* const* rows, std::size_t first, std::size_t last, std::size_t dim,
                              std::uint8_t* out) {
  const std::size_t vecs = dim / 16;
  for (std::size_t t = first / 4 * 4; t < last; t += 4) {
    std::uint8_t* to = out + t * dim;
    std::size_t vec = 0;
    for (; vec + 2 <= vecs; vec += 2, to += 128) {
      __m512i quads[2];
      load_quads<S, 2>(rows + t, vec, quads);
      _mm512_store_si512(to, quads[0]);
      _mm512_store_si512(to + 64, quads[1]);
    }
    if (vec < vecs) {
      __m512i quads[1];
      load_quads<S, 1>(rows + t, vec, quads);
      _mm512_store_si512(to, quads[0]);
    }
  }
}

/// Adds the value of the sums to o[r][16 * vec ..], for N vectors and R rows.
template <std::size_t R, std::size_t N>
HWY_INLINE void add_to_output(const __m512i (&sums)[R * kDigits * N], const WeightUnit* units, std::size_t vec,
                              float* o, std::size_t v_dim) {
  const DF df;
#pragma GCC unroll 4
  for (std::size_t r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (std::size_t n = 0; n < N; ++n) {
      float* to = o + r * v_dim + (vec + n) * 16;
      const VF value = hn::Sub(join_digits<R, N>(sums, r, n), hn::Set(df, units[r].centre));
      hn::Store(hn::MulAdd(value, hn::Set(df, units[r].unit), hn::Load(df, to)), df, to);
    }
  }
}

/// o[r][16 * vec ..] += units[r] * sum over tokens [first, last) of weight * code, for N vectors and R rows. Digits of
/// weights are at p + r * kWeightRow, [3][kTile].
template <std::size_t R, std::size_t N>
HWY_INLINE void integer_accumulate(const std::uint8_t* p, const WeightUnit* units, const std::uint8_t* v,
                                   std::size_t first, std::size_t last, std::size_t vec, float* o, std::size_t v_dim) {
  __m512i sums[R * kDigits * N];
#pragma GCC unroll 32
  for (__m512i& x : sums) x = _mm512_setzero_si512();
  std::size_t t = first / 4 * 4;
  do {  // first < last
    const std::uint8_t* at = v + t * v_dim + vec * 64;
    __m512i codes[N];
    codes[0] = _mm512_load_si512(at);
    if constexpr (N > 1) codes[1] = _mm512_load_si512(at + 64);
    add_products<0, R, N, kWeightRow, kWeightDigit>(sums, codes, p + t);
    t += 4;
  } while (t < last);
  add_to_output<R, N>(sums, units, vec, o, v_dim);
}

/// integer_accumulate() for all of v_dim.
template <std::size_t R>
HWY_NOINLINE void integer_weighted_sum(const std::uint8_t* p, const WeightUnit* units, const std::uint8_t* v,
                                       std::size_t first, std::size_t last, float* o, std::size_t v_dim) {
  const std::size_t vecs = v_dim / 16;
  std::size_t vec = 0;
  for (; vec + 2 <= vecs; vec += 2) integer_accumulate<R, 2>(p, units, v, first, last, vec, o, v_dim);
  if (vec < vecs) integer_accumulate<R, 1>(p, units, v, first, last, vec, o, v_dim);
}

/// As integer_accumulate(), but of values as they are stored.
template <Stored S, std::size_t R, std::size_t N>
HWY_INLINE void direct_integer_accumulate(const std::uint8_t* p, const WeightUnit* units, const char* const* v,
                                          std::size_t first, std::size_t last, std::size_t vec, float* o,
                                          std::size_t v_dim, Prefetcher& near) {
  __m512i sums[R * kDigits * N];
#pragma GCC unroll 32
  for (__m512i& x : sums) x = _mm512_setzero_si512();
  std::size_t t = first / 4 * 4;
  do {  // first < last
    near.step();
    __m512i codes[N];
    load_quads<S, N>(v + t, vec, codes);
    add_products<0, R, N, kWeightRow, kWeightDigit>(sums, codes, p + t);
    t += 4;
  } while (t < last);
  add_to_output<R, N>(sums, units, vec, o, v_dim);
}

/// direct_integer_accumulate() for all of v_dim.
template <Stored S, std::size_t R>
HWY_NOINLINE void direct_integer_weighted_sum(const std::uint8_t* p, const WeightUnit* units, const char* const* v,
                                              std::size_t first, std::size_t last, float* o, std::size_t v_dim,
                                              const Ahead& ahead) {
  const std::size_t vecs = v_dim / 16;
  Prefetcher near(ahead, (last + 3) / 4 - first / 4, (vecs + 1) / 2);
  std::size_t vec = 0;
  for (; vec + 2 <= vecs; vec += 2) {
    direct_integer_accumulate<S, R, 2>(p, units, v, first, last, vec, o, v_dim, near);
  }
  if (vec < vecs) direct_integer_accumulate<S, R, 1>(p, units, v, first, last, vec, o, v_dim, near);
}

/// Kernels for turned tiles, by the number of rows, less 1.
inline constexpr decltype(&integer_scores<1>) kIntegerScores[kRowsAtOnce] = {integer_scores<1>, integer_scores<2>,
                                                                             integer_scores<3>, integer_scores<4>};
inline constexpr decltype(&integer_weighted_sum<1>) kIntegerWeightedSum[kRowsAtOnce] = {
    integer_weighted_sum<1>, integer_weighted_sum<2>, integer_weighted_sum<3>, integer_weighted_sum<4>};

/// Kernels for rows stored in one way; the arrays are indexed by the number of rows of q, less 1.
struct IntegerKernels {
  decltype(&direct_integer_scores<Stored::int8, 1>) direct_scores[kRowsAtOnce];
  decltype(&direct_integer_weighted_sum<Stored::int8, 1>) direct_weighted_sum[kRowsAtOnce];
  decltype(&turn_keys<Stored::int8>) turn_keys;
  decltype(&turn_values<Stored::int8>) turn_values;
};

template <Stored S>
inline constexpr IntegerKernels kIntegerKernels = {
    {direct_integer_scores<S, 1>, direct_integer_scores<S, 2>, direct_integer_scores<S, 3>,
     direct_integer_scores<S, 4>},
    {direct_integer_weighted_sum<S, 1>, direct_integer_weighted_sum<S, 2>, direct_integer_weighted_sum<S, 3>,
     direct_integer_weighted_sum<S, 4>},
    turn_keys<S>,
    turn_values<S>,
};

HWY_INLINE const IntegerKernels& integer_kernels(Stored stored) {
  return stored == Stored::int8 ? kIntegerKernels<Stored::int8> : kIntegerKernels<Stored::int4>;
}

#endif  // PAGEDKV_CPU_ATTENTION_INTEGERS

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace pagedkv::cpu::attention
HWY_AFTER_NAMESPACE();

#endif  // PAGEDKV_CPU_ATTENTION_INTEGER_INL_H_
