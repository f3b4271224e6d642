#include "safetensors.h"

#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "pagedkv/core/half.h"
#include "pagedkv/error.h"

namespace llama {
namespace {

using nlohmann::json;
using pagedkv::Error;
using pagedkv::ErrorCode;

struct TypeInfo {
  std::string_view name;
  ElementType type;
  std::int64_t bytes;
};
constexpr std::array<TypeInfo, 6> kTypes{{{"U8", ElementType::u8, 1},
                                          {"I32", ElementType::i32, 4},
                                          {"F16", ElementType::f16, 2},
                                          {"BF16", ElementType::bf16, 2},
                                          {"F32", ElementType::f32, 4},
                                          {"F64", ElementType::f64, 8}}};

const TypeInfo& info(ElementType type) {
  return kTypes[static_cast<std::size_t>(type)];
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return json(shape).dump();
}

std::optional<std::int64_t> count(const json& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  const auto n = value.get<std::uint64_t>();
  if (n > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  return static_cast<std::int64_t>(n);
}

/// a * b, or nothing if that passes int64.
std::optional<std::int64_t> product(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

Tensor parse_tensor(const std::string& where, const json& entry, std::span<const std::byte> data) {
  const auto bad = [&](const char* part, std::string value, const char* accepted) {
    return Error(ErrorCode::bad_file, where + "." + part, std::move(value), accepted);
  };
  if (!entry.is_object()) throw Error(ErrorCode::bad_file, where, "", "an object with dtype, shape, data_offsets");
  const auto member = [&](const char* key) { return entry.contains(key) ? entry.at(key) : json(); };

  Tensor tensor;
  const json dtype = member("dtype");
  const TypeInfo* type = nullptr;
  for (const TypeInfo& t : kTypes) {
    if (dtype == t.name) type = &t;
  }
  if (type == nullptr) throw bad("dtype", dtype.is_string() ? dtype.get<std::string>() : "", "U8 I32 F16 BF16 F32 F64");
  tensor.type = type->type;

  const json shape = member("shape");
  if (!shape.is_array()) throw bad("shape", "", "an array of sizes");
  std::optional<std::int64_t> bytes = type->bytes;
  for (const json& size : shape) {
    const auto n = count(size);
    if (!n) throw bad("shape", size.is_number() ? size.dump() : "", "sizes from 0 to 2^63-1");
    tensor.shape.push_back(*n);
    bytes = product(*bytes, *n);
    if (!bytes) throw bad("shape", shape_text(tensor.shape), "a size in bytes below 2^63");
  }

  const json offsets = member("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) throw bad("data_offsets", "", "[begin, end]");
  const auto begin = count(offsets[0]);
  const auto end = count(offsets[1]);
  const auto available = static_cast<std::int64_t>(data.size());
  if (!begin || !end || *begin > *end || *end > available || *end - *begin != *bytes) {
    throw bad("data_offsets", offsets[0].is_number() && offsets[1].is_number() ? offsets.dump() : "",
              "[begin, end] inside the file, as far apart as dtype and shape say");
  }
  tensor.bytes = data.subspan(static_cast<std::size_t>(*begin), static_cast<std::size_t>(*end - *begin));
  return tensor;
}

template <class T>
std::vector<T> copy_elements(const Tensor& tensor) {
  std::vector<T> out(tensor.bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), tensor.bytes.size());
  return out;
}

template <class Half>
std::vector<float> widen(const Tensor& tensor) {
  const auto narrow = copy_elements<std::uint16_t>(tensor);
  std::vector<float> out(narrow.size());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = pagedkv::core::to_float(Half{narrow[i]});
  return out;
}

}  // namespace

std::int64_t Tensor::elements() const {
  return static_cast<std::int64_t>(bytes.size()) / info(type).bytes;
}

TensorTable::TensorTable(std::span<const std::byte> file, std::string name) : name_(std::move(name)) {
  std::uint64_t header_bytes = 0;
  if (file.size() < sizeof(header_bytes)) {
    throw Error(ErrorCode::bad_file, name_, std::to_string(file.size()) + " bytes", "a safetensors file");
  }
  for (std::size_t i = 0; i < sizeof(header_bytes); ++i) {
    header_bytes |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  }
  const auto rest = file.subspan(sizeof(header_bytes));
  if (header_bytes > rest.size()) {
    throw Error(ErrorCode::bad_file, name_ + ": header length", std::to_string(header_bytes),
                "at most the " + std::to_string(rest.size()) + " bytes that follow it");
  }
  const auto* text = reinterpret_cast<const char*>(rest.data());
  const json header = json::parse(text, text + header_bytes, nullptr, false);
  if (!header.is_object()) throw Error(ErrorCode::bad_file, name_ + ": header", "", "a JSON object");
  const auto data = rest.subspan(static_cast<std::size_t>(header_bytes));
  for (const auto& [key, entry] : header.items()) {
    if (key != "__metadata__") {
      tensors_.emplace(key, parse_tensor(name_ + ": " + key, entry, data));
      continue;
    }
    if (!entry.is_object()) throw Error(ErrorCode::bad_file, name_ + ": " + key, "", "an object of strings");
    for (const auto& [k, v] : entry.items()) {
      if (!v.is_string()) throw Error(ErrorCode::bad_file, name_ + ": " + key + "." + k, "", "a string");
      metadata_.emplace(k, v.get<std::string>());
    }
  }
}

const Tensor& TensorTable::at(const std::string& tensor) const {
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end()) throw Error(ErrorCode::bad_file, name_, "no tensor " + tensor, "a file that has it");
  return found->second;
}

const Tensor& TensorTable::checked(const std::string& tensor, const std::vector<std::int64_t>& shape) const {
  const Tensor& t = at(tensor);
  if (t.shape != shape) {
    throw Error(ErrorCode::bad_file, name_ + ": " + tensor + ".shape", shape_text(t.shape), shape_text(shape));
  }
  return t;
}

void TensorTable::require_type(const std::string& tensor, ElementType type) const {
  const Tensor& t = at(tensor);
  if (t.type != type) {
    throw Error(ErrorCode::bad_file, name_ + ": " + tensor + ".dtype", std::string(info(t.type).name),
                std::string(info(type).name));
  }
}

std::vector<float> TensorTable::floats(const std::string& tensor, const std::vector<std::int64_t>& shape) const {
  const Tensor& t = checked(tensor, shape);
  switch (t.type) {
    case ElementType::f16:
      return widen<pagedkv::half_t>(t);
    case ElementType::bf16:
      return widen<pagedkv::bfloat16_t>(t);
    default:
      require_type(tensor, ElementType::f32);
      return copy_elements<float>(t);
  }
}

std::vector<double> TensorTable::doubles(const std::string& tensor, const std::vector<std::int64_t>& shape) const {
  require_type(tensor, ElementType::f64);
  return copy_elements<double>(checked(tensor, shape));
}

std::vector<std::int32_t> TensorTable::ints(const std::string& tensor, const std::vector<std::int64_t>& shape) const {
  require_type(tensor, ElementType::i32);
  return copy_elements<std::int32_t>(checked(tensor, shape));
}

std::vector<std::int32_t> TensorTable::ints(const std::string& tensor) const {
  return ints(tensor, {at(tensor).elements()});
}

std::string TensorTable::text(const std::string& tensor) const {
  require_type(tensor, ElementType::u8);
  const Tensor& t = checked(tensor, {at(tensor).elements()});
  return {reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()};
}

}  // namespace llama
