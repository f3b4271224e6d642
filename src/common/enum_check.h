#pragma once
// Checks that an enum holds one of its enumerators; a value cast from an integer may not.

#include <string_view>

#include "common/check.h"
#include "pagedkv/ops.h"
#include "pagedkv/types.h"

namespace pagedkv::common {

/// Checks `value` against enumerators that count up from 0 to `last`.
template <class E>
void check_enum_up_to(std::string_view owner, std::string_view field, E value, E last, std::string_view accepted) {
  if (static_cast<unsigned>(value) > static_cast<unsigned>(last)) {
    reject(owner, field, static_cast<unsigned>(value), std::string(accepted));
  }
}

inline void check_enum(std::string_view owner, std::string_view field, DType value) {
  check_enum_up_to(owner, field, value, DType::bf16, "f32, f16 or bf16");
}
inline void check_enum(std::string_view owner, std::string_view field, KvType value) {
  check_enum_up_to(owner, field, value, KvType::int4, "same, int8 or int4");
}
inline void check_enum(std::string_view owner, std::string_view field, LayoutKind value) {
  check_enum_up_to(owner, field, value, LayoutKind::turbomind, "turbomind");
}
inline void check_enum(std::string_view owner, std::string_view field, RopeType value) {
  check_enum_up_to(owner, field, value, RopeType::llama3, "none, standard, linear, dynamic, yarn or llama3");
}
inline void check_enum(std::string_view owner, std::string_view field, RopePairs value) {
  check_enum_up_to(owner, field, value, RopePairs::half_split, "interleaved or half_split");
}
inline void check_enum(std::string_view owner, std::string_view field, MropeMode value) {
  check_enum_up_to(owner, field, value, MropeMode::interleaved, "none, chunked or interleaved");
}

}  // namespace pagedkv::common
