#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"

namespace pagedkv::tool {
namespace {

struct Options {
  CacheConfig config{.layers = 32, .kv_heads = 8};
  std::string format = "same";
  bool json = false;
};

/// Bits that one element of the cache costs, parameters included.
double bits_per_element(const BlockLayout& l) {
  const double elements = 1.0 * l.layers * l.kv_heads * l.head_dim * l.block_len * (l.shared_kv ? 1 : 2);
  return 8.0 * static_cast<double>(l.block_bytes) / elements;
}

nlohmann::ordered_json to_json(const BlockLayout& l) {
  return {
      {"layout", name(l.kind)},
      {"dtype", name(l.dtype)},
      {"k_format", name(l.format.k)},
      {"v_format", name(l.format.v)},
      {"shared_kv", l.shared_kv},
      {"layers", l.layers},
      {"kv_heads", l.kv_heads},
      {"head_dim", l.head_dim},
      {"block_len", l.block_len},
      {"k_row_bytes", l.k_row_bytes},
      {"v_row_bytes", l.shared_kv ? 0 : l.v_row_bytes},
      {"k_param_bytes", l.k_param_bytes},
      {"v_param_bytes", l.shared_kv ? 0 : l.v_param_bytes},
      {"head_data_bytes", l.head_data_bytes},
      {"head_param_bytes", l.head_param_bytes},
      {"param_offset", l.param_offset},
      {"layer_bytes", l.layer_bytes},
      {"block_bytes", l.block_bytes},
      {"token_bytes", static_cast<double>(l.block_bytes) / l.block_len},
      {"bits_per_element", bits_per_element(l)},
  };
}

void run(const Options& o) {
  CacheConfig config = o.config;
  config.format = parse_format(o.format);
  const BlockLayout layout = make_layout(config);
  if (o.json) {
    std::cout << to_json(layout).dump(2) << '\n';
    return;
  }
  std::cout << to_string(layout);
  std::cout << "block: " << layout.block_bytes
            << " bytes; token: " << static_cast<double>(layout.block_bytes) / layout.block_len
            << " bytes; element: " << bits_per_element(layout) << " bits\n";
}

}  // namespace

void add_layout_command(CLI::App& app) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("layout", "print where every byte of a block lies, and the block's size");
  command->add_option("--layers", options->config.layers, "layers of the model")->capture_default_str();
  add_config_options(*command, options->config);
  command->add_option("--format", options->format, "stored type: same, int8, int4, or K/V as in int8/int4")
      ->capture_default_str();
  command->add_flag("--shared-kv", options->config.shared_kv, "one row per token is both key and value (MLA)");
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options] { run(*options); });
}

}  // namespace pagedkv::tool
