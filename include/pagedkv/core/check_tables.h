#pragma once
// The arithmetic that decides cache bytes, as tables: input number i -> result bits, with the hash that every host,
// every device and every compiler must find. self_check.h runs them on the CPU; a kernel may run them on a device.

#include <cstdint>

#include "pagedkv/core/half.h"
#include "pagedkv/core/hd.h"
#include "pagedkv/core/quant.h"
#include "pagedkv/core/rope.h"

namespace pagedkv::core {

enum class CheckId : std::uint8_t {
  f16_to_f32,
  bf16_to_f32,
  f32_to_f16,
  f32_to_bf16,
  quant_param_f16_int8,
  quant_param_f16_int4,
  quant_param_bf16_int8,
  quant_param_bf16_int4,
  quant_param_f32_int8,
  quant_param_f32_int4,
  encode_f16_int8,
  encode_f16_int4,
  encode_bf16_int8,
  encode_bf16_int4,
  encode_f32_int8,
  encode_f32_int4,
  decode_f16_int8,
  decode_f16_int4,
  decode_bf16_int8,
  decode_bf16_int4,
  decode_f32_int8,
  decode_f32_int4,
  sincos,
  turn_from_base,
};

/// Scatters 64 bits over 64 bits, one to one (the finaliser of splitmix64).
PAGEDKV_HD std::uint64_t scatter(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Share of input i in the hash of a table. The hash is the sum of the shares modulo 2^64, so any order and any number
/// of threads gives the same.
PAGEDKV_HD std::uint64_t check_share(std::uint64_t i, std::uint64_t result) {
  return scatter(scatter(i) ^ result);
}

namespace detail {

/// Bits of a float with every NaN made one, because NaN payloads are no part of the contract.
PAGEDKV_HD std::uint32_t canonical_bits(float x) {
  return x == x ? bits_as<std::uint32_t>(x) : 0x7fffffffu;
}

/// A value of T from the top bits of `bits`, every bit pattern possible.
template <class T>
PAGEDKV_HD T value_from_top(std::uint32_t bits) {
  if constexpr (sizeof(T) == 4) {
    return bits_as<T>(bits);
  } else {
    return bits_as<T>(static_cast<std::uint16_t>(bits >> 16));
  }
}

template <class T>
PAGEDKV_HD std::uint64_t param_bits(QuantParam<T> p) {
  return (std::uint64_t{canonical_bits(to_float(p.scale))} << 32) | canonical_bits(to_float(p.zero));
}

// 16-bit T: minimum and maximum take all pairs of values. f32: pseudo-random pairs.
template <class T, int Bits>
PAGEDKV_HD std::uint64_t check_quant_param(std::uint64_t i) {
  const std::uint64_t pair = sizeof(T) == 4 ? scatter(i) : ((i & 0xffff0000u) << 32) | (i << 16);
  const float a = to_float(value_from_top<T>(static_cast<std::uint32_t>(pair >> 32)));
  const float b = to_float(value_from_top<T>(static_cast<std::uint32_t>(pair)));
  return param_bits(quant_param<T, Bits>(min_nan(a, b), max_nan(a, b)));
}

// 16-bit T: all pairs of value and scale, the zero pseudo-random. f32: all three pseudo-random.
template <class T, int Bits>
PAGEDKV_HD std::uint64_t check_encode(std::uint64_t i) {
  const std::uint64_t r = scatter(i);
  const std::uint64_t pair = sizeof(T) == 4 ? r : ((i & 0xffff0000u) << 32) | (i << 16);
  const float x = to_float(value_from_top<T>(static_cast<std::uint32_t>(pair >> 32)));
  const T scale = value_from_top<T>(static_cast<std::uint32_t>(pair));
  const T zero = value_from_top<T>(static_cast<std::uint32_t>(scatter(r)));
  return encode<Bits>(x, row_encoder<T>({scale, zero}));
}

// 16-bit T: all codes and scales, the zero's high bits all and its low ones pseudo-random. f32: pseudo-random.
template <class T, int Bits>
PAGEDKV_HD std::uint64_t check_decode(std::uint64_t i) {
  const std::uint64_t r = scatter(i);
  const auto code = static_cast<std::uint32_t>(i & ((1u << Bits) - 1u));
  const std::uint64_t scale = sizeof(T) == 4 ? r >> 32 : (i >> Bits) << 16;
  const std::uint64_t high = (i >> (16 + Bits)) << (16 + Bits);  // 16 - Bits bits of the zero, at the top of 32
  const std::uint64_t zero = sizeof(T) == 4 ? r : high | (r & ((1u << (16 + Bits)) - 1u));
  const QuantParam<T> p{value_from_top<T>(static_cast<std::uint32_t>(scale)),
                        value_from_top<T>(static_cast<std::uint32_t>(zero))};
  return canonical_bits(to_float(decode<T>(code, p)));
}

}  // namespace detail

/// Result bits of input i of a table.
PAGEDKV_HD std::uint64_t check_result(CheckId id, std::uint64_t i) {
  const auto u = static_cast<std::uint32_t>(i);
  switch (id) {
    case CheckId::f16_to_f32:
      return detail::canonical_bits(to_float(half_t{static_cast<std::uint16_t>(u)}));
    case CheckId::bf16_to_f32:
      return detail::canonical_bits(to_float(bfloat16_t{static_cast<std::uint16_t>(u)}));
    case CheckId::f32_to_f16:
      return from_float<half_t>(bits_as<float>(u)).bits;
    case CheckId::f32_to_bf16:
      return from_float<bfloat16_t>(bits_as<float>(u)).bits;
    case CheckId::quant_param_f16_int8:
      return detail::check_quant_param<half_t, 8>(i);
    case CheckId::quant_param_f16_int4:
      return detail::check_quant_param<half_t, 4>(i);
    case CheckId::quant_param_bf16_int8:
      return detail::check_quant_param<bfloat16_t, 8>(i);
    case CheckId::quant_param_bf16_int4:
      return detail::check_quant_param<bfloat16_t, 4>(i);
    case CheckId::quant_param_f32_int8:
      return detail::check_quant_param<float, 8>(i);
    case CheckId::quant_param_f32_int4:
      return detail::check_quant_param<float, 4>(i);
    case CheckId::encode_f16_int8:
      return detail::check_encode<half_t, 8>(i);
    case CheckId::encode_f16_int4:
      return detail::check_encode<half_t, 4>(i);
    case CheckId::encode_bf16_int8:
      return detail::check_encode<bfloat16_t, 8>(i);
    case CheckId::encode_bf16_int4:
      return detail::check_encode<bfloat16_t, 4>(i);
    case CheckId::encode_f32_int8:
      return detail::check_encode<float, 8>(i);
    case CheckId::encode_f32_int4:
      return detail::check_encode<float, 4>(i);
    case CheckId::decode_f16_int8:
      return detail::check_decode<half_t, 8>(i);
    case CheckId::decode_f16_int4:
      return detail::check_decode<half_t, 4>(i);
    case CheckId::decode_bf16_int8:
      return detail::check_decode<bfloat16_t, 8>(i);
    case CheckId::decode_bf16_int4:
      return detail::check_decode<bfloat16_t, 4>(i);
    case CheckId::decode_f32_int8:
      return detail::check_decode<float, 8>(i);
    case CheckId::decode_f32_int4:
      return detail::check_decode<float, 4>(i);
    case CheckId::sincos: {
      const SinCos t = sincos_turn(i << 32);
      return (std::uint64_t{bits_as<std::uint32_t>(t.sin)} << 32) | bits_as<std::uint32_t>(t.cos);
    }
    case CheckId::turn_from_base: {
      // Bases from 2 to 2^24, pairs 0 .. 127 of up to 256 channels.
      const std::uint64_t r = scatter(i);
      const auto base_bits = 0x40000000u + static_cast<std::uint32_t>((r >> 32) % (23u << 23));
      const int dim = 8 * (1 + static_cast<int>(r % 32));
      const int pair = static_cast<int>((r >> 8) % static_cast<std::uint64_t>(dim / 2));
      return turn_from_base(bits_as<float>(base_bits), pair, dim);
    }
  }
  return 0;
}

/// One table: its inputs are 0 .. inputs-1.
struct CheckTable {
  CheckId id;
  const char* name;
  std::uint64_t inputs;
  std::uint64_t hash;         ///< over all inputs
  std::uint64_t sample_hash;  ///< over the inputs 0, step, 2 step, ... with step = check_sample_step(inputs)
};

/// Distance of the inputs in a sample of a table: all of a small one, about 2^18 of a large one. Odd, so that a sample
/// meets every low bit pattern.
PAGEDKV_HD_CONSTEXPR std::uint64_t check_sample_step(std::uint64_t inputs) {
  return (inputs >> 18) | 1u;
}

/// All tables, with the hashes that they must have.
inline constexpr CheckTable kCheckTables[] = {
    {CheckId::f16_to_f32, "f16_to_f32", 1ull << 16, 0x3096c0eb935042cdu, 0x3096c0eb935042cdu},
    {CheckId::bf16_to_f32, "bf16_to_f32", 1ull << 16, 0xf166117684c84c60u, 0xf166117684c84c60u},
    {CheckId::f32_to_f16, "f32_to_f16", 1ull << 32, 0xf373d44b44556c88u, 0xe4ed21db3e5d5656u},
    {CheckId::f32_to_bf16, "f32_to_bf16", 1ull << 32, 0x6e036d1e54efd929u, 0x35ac18c1da39596bu},
    {CheckId::quant_param_f16_int8, "quant_param_f16_int8", 1ull << 32, 0x88d6f8e6e3c68885u, 0x23ad1968d6892238u},
    {CheckId::quant_param_f16_int4, "quant_param_f16_int4", 1ull << 32, 0xc8206abadec398c9u, 0x518b98171a8b890du},
    {CheckId::quant_param_bf16_int8, "quant_param_bf16_int8", 1ull << 32, 0xe26a8ed894c93572u, 0xd780f5058e814c35u},
    {CheckId::quant_param_bf16_int4, "quant_param_bf16_int4", 1ull << 32, 0xcdc240c3810d3286u, 0xff93570704a78f6du},
    {CheckId::quant_param_f32_int8, "quant_param_f32_int8", 1ull << 24, 0x87eb2c77885ea78bu, 0xa779b85237f9790bu},
    {CheckId::quant_param_f32_int4, "quant_param_f32_int4", 1ull << 24, 0x937f4f4c02d970ceu, 0xf558b1bc1008eef9u},
    {CheckId::encode_f16_int8, "encode_f16_int8", 1ull << 32, 0xfa652632ac923441u, 0x7682e9e1debbf200u},
    {CheckId::encode_f16_int4, "encode_f16_int4", 1ull << 32, 0x1d50db46afc3e2fau, 0x6881d41f924cf990u},
    {CheckId::encode_bf16_int8, "encode_bf16_int8", 1ull << 32, 0x443536468b0ec6e2u, 0x1a3c33ff0baab374u},
    {CheckId::encode_bf16_int4, "encode_bf16_int4", 1ull << 32, 0xa041ad63e2e4f87bu, 0xa2675b86d24e348fu},
    {CheckId::encode_f32_int8, "encode_f32_int8", 1ull << 24, 0x8d14ad94a9f50823u, 0xdf228abc81e95ac0u},
    {CheckId::encode_f32_int4, "encode_f32_int4", 1ull << 24, 0xf56bb278fdd53a0au, 0x1a5e203be497b2e9u},
    {CheckId::decode_f16_int8, "decode_f16_int8", 1ull << 32, 0x611313d63c71709du, 0x0889fd081056a6cfu},
    {CheckId::decode_f16_int4, "decode_f16_int4", 1ull << 32, 0x12d342a33baebfb4u, 0x6e01841d87d2eb69u},
    {CheckId::decode_bf16_int8, "decode_bf16_int8", 1ull << 32, 0x8e28a2c16f5cba23u, 0x5ca527b74b4529d2u},
    {CheckId::decode_bf16_int4, "decode_bf16_int4", 1ull << 32, 0x1cefd48a88d44665u, 0x05bbc3e849c62760u},
    {CheckId::decode_f32_int8, "decode_f32_int8", 1ull << 24, 0xa5d96f8fe4826e00u, 0x623633607bb9e429u},
    {CheckId::decode_f32_int4, "decode_f32_int4", 1ull << 24, 0xf56d1650d8a3f52du, 0x312cd905f483f3cau},
    {CheckId::sincos, "sincos", 1ull << 32, 0x6b523232b4dc7dcfu, 0x51bf22bfdcdd4430u},
    {CheckId::turn_from_base, "turn_from_base", 1ull << 20, 0x2f4af0e7939a3f1du, 0x3c1e2467aeec3e22u},
};

}  // namespace pagedkv::core
