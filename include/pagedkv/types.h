#pragma once
// Element types, cache formats and the strong id types that every other header uses.

#include <cstddef>
#include <cstdint>

namespace pagedkv {

/// Compute type T: the type of q, k, v, o and of unquantised cache data. f32 exists on the CPU only.
enum class DType : std::uint8_t { f32, f16, bf16 };

/// Stored type of one side (keys or values) of the cache; `same` stores T itself.
enum class KvType : std::uint8_t { same, int8, int4 };

/// Stored types of keys and values, independent of each other.
struct KvFormat {
  KvType k = KvType::same;
  KvType v = KvType::same;
  friend constexpr bool operator==(const KvFormat&, const KvFormat&) = default;
};

/// Arrangement of the bytes of one block; see docs/layout.md.
enum class LayoutKind : std::uint8_t { turbomind };

/// Index of a block in a slab. A strong type, so that it cannot be mixed up with a logical block number.
enum class BlockId : std::int32_t {};

constexpr std::int32_t to_index(BlockId id) noexcept {
  return static_cast<std::int32_t>(id);
}

/// Size of one element of T in bytes.
constexpr int dtype_bytes(DType t) noexcept {
  return t == DType::f32 ? 4 : 2;
}

/// Bits of one stored element.
constexpr int kv_bits(KvType k, DType t) noexcept {
  return k == KvType::int8 ? 8 : k == KvType::int4 ? 4 : 8 * dtype_bytes(t);
}

constexpr const char* name(DType t) noexcept {
  return t == DType::f32 ? "f32" : t == DType::f16 ? "f16" : "bf16";
}

constexpr const char* name(KvType k) noexcept {
  return k == KvType::same ? "same" : k == KvType::int8 ? "int8" : "int4";
}

constexpr const char* name(LayoutKind) noexcept {
  return "turbomind";
}

}  // namespace pagedkv
