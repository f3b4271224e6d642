#include "config.h"

#include <nlohmann/json.hpp>

#include "mapped_file.h"
#include "pagedkv/error.h"

namespace llama {
namespace {

using nlohmann::json;
using pagedkv::Error;
using pagedkv::ErrorCode;

/// One JSON object whose members are read with their limits.
class Reader {
 public:
  Reader(const json& object, std::string name) : object_(object), name_(std::move(name)) {
    if (!object_.is_object()) throw Error(ErrorCode::bad_file, name_, "", "a JSON object");
  }

  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

  std::int32_t integer(const char* key, std::int32_t least, std::int32_t most) const {
    const json& value = member(key);
    if (value.is_number_integer()) {
      const bool huge = value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX;
      const auto n = huge ? INT64_MAX : value.get<std::int64_t>();
      if (n >= least && n <= most) return static_cast<std::int32_t>(n);
    }
    throw bad(key, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }

  std::int32_t integer(const char* key, std::int32_t least, std::int32_t most, std::int32_t otherwise) const {
    return has(key) ? integer(key, least, most) : otherwise;
  }

  /// One integer or an array of them; none if the key is missing.
  std::vector<std::int32_t> integers(const char* key, std::int32_t least, std::int32_t most) const {
    if (!has(key)) return {};
    if (!member(key).is_array()) return {integer(key, least, most)};
    std::vector<std::int32_t> all;
    for (const json& element : member(key)) {
      const json one{{key, element}};
      all.push_back(Reader(one, name_).integer(key, least, most));
    }
    return all;
  }

  double number(const char* key, double least, double most) const {
    const json& value = member(key);
    if (value.is_number()) {
      const auto x = value.get<double>();
      if (x >= least && x <= most) return x;
    }
    throw bad(key, "a number from " + json(least).dump() + " to " + json(most).dump());
  }

  double number(const char* key, double least, double most, double otherwise) const {
    return has(key) ? number(key, least, most) : otherwise;
  }

  bool boolean(const char* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!member(key).is_boolean()) throw bad(key, "true or false");
    return member(key).get<bool>();
  }

  std::string word(const char* key, const char* otherwise) const {
    if (!has(key)) return otherwise;
    if (!member(key).is_string()) throw bad(key, "a string");
    return member(key).get<std::string>();
  }

  Reader object(const char* key) const { return {member(key), name_ + "." + key}; }

  Error bad(const char* key, const std::string& accepted) const {
    const std::string value =
        object_.contains(key) ? object_.at(key).dump(-1, ' ', false, json::error_handler_t::replace) : "missing";
    return Error(ErrorCode::bad_file, name_ + "." + key, value.substr(0, 80), accepted);
  }

 private:
  const json& member(const char* key) const {
    if (!object_.contains(key)) throw bad(key, "a value");
    return object_.at(key);
  }

  const json& object_;
  std::string name_;
};

constexpr double kMaxBase = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr std::int32_t kMaxPositions = INT32_MAX;

void read_rope_scaling(const Reader& scaling, pagedkv::RopeParams& rope) {
  using pagedkv::RopeType;
  const char* key = scaling.has("rope_type") ? "rope_type" : "type";  // newer and older files
  const std::string type = scaling.word(key, "default");
  if (type == "default") return;
  rope.factor = scaling.number("factor", 1.0, kMaxFactor);
  if (type == "linear") {
    rope.type = RopeType::linear;
    return;
  }
  rope.original_max_position = scaling.integer("original_max_position_embeddings", 1, kMaxPositions);
  if (type == "llama3") {
    rope.type = RopeType::llama3;
    rope.low_freq_factor = scaling.number("low_freq_factor", 1e-6, kMaxFactor);
    rope.high_freq_factor = scaling.number("high_freq_factor", 1e-6, kMaxFactor);
  } else if (type == "yarn") {
    rope.type = RopeType::yarn;
    rope.attention_factor = scaling.number("attention_factor", 1e-6, kMaxFactor, 0.0);
    rope.beta_fast = scaling.number("beta_fast", 1e-6, kMaxFactor, rope.beta_fast);
    rope.beta_slow = scaling.number("beta_slow", 1e-6, kMaxFactor, rope.beta_slow);
  } else {
    throw scaling.bad(key, "default, linear, yarn or llama3");
  }
}

pagedkv::RopeParams read_rope(const Reader& in, std::int32_t head_dim) {
  pagedkv::RopeParams rope;
  rope.type = pagedkv::RopeType::standard;
  rope.dim = head_dim;
  rope.base = in.number("rope_theta", 1.0, kMaxBase, rope.base);
  const std::string style = in.word("rope_style", "half_split");
  if (style != "half_split" && style != "interleaved") throw in.bad("rope_style", "half_split or interleaved");
  rope.pairs = style == "interleaved" ? pagedkv::RopePairs::interleaved : pagedkv::RopePairs::half_split;
  if (in.has("rope_scaling")) read_rope_scaling(in.object("rope_scaling"), rope);
  return rope;
}

}  // namespace

Config parse_config(std::string_view text, const std::string& name) {
  const json document = json::parse(text, nullptr, false);
  const Reader in(document, name);
  if (in.word("model_type", "llama") != "llama") throw in.bad("model_type", "llama");
  if (in.word("hidden_act", "silu") != "silu") throw in.bad("hidden_act", "silu");
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (in.boolean(key, false)) throw in.bad(key, "false");
  }

  Config c;
  c.vocab_size = in.integer("vocab_size", 1, 1 << 24);
  c.hidden_size = in.integer("hidden_size", 1, 1 << 16);
  c.intermediate_size = in.integer("intermediate_size", 1, 1 << 18);
  c.layers = in.integer("num_hidden_layers", 1, 1 << 12);
  c.q_heads = in.integer("num_attention_heads", 1, 1 << 10);
  c.kv_heads = in.integer("num_key_value_heads", 1, c.q_heads, c.q_heads);
  if (c.q_heads % c.kv_heads != 0) throw in.bad("num_key_value_heads", "a divisor of num_attention_heads");
  c.head_dim = in.integer("head_dim", 16, 256, c.hidden_size / c.q_heads);
  if (c.head_dim % 16 != 0 || c.head_dim < 16 || c.head_dim > 256) {
    throw in.bad("head_dim", "a multiple of 16 from 16 to 256 (its default is hidden_size / num_attention_heads)");
  }
  c.rms_norm_eps = static_cast<float>(in.number("rms_norm_eps", 0.0, 1.0));
  c.tied_embeddings = in.boolean("tie_word_embeddings", false);
  c.eos_tokens = in.integers("eos_token_id", 0, c.vocab_size - 1);
  c.rope = read_rope(in, c.head_dim);
  return c;
}

Config read_config(const std::string& path) {
  const MappedFile file(path);
  return parse_config({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path);
}

}  // namespace llama
