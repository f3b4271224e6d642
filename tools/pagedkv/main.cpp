#include <exception>
#include <iostream>
#include <map>

#include "commands.h"
#include "pagedkv/error.h"
#include "pagedkv/version.h"

namespace pagedkv::tool {

namespace {

const std::map<std::string, DType> kDTypes = {{"f32", DType::f32}, {"f16", DType::f16}, {"bf16", DType::bf16}};

KvType parse_type(const std::string& word, const std::string& text) {
  for (const KvType type : {KvType::same, KvType::int8, KvType::int4}) {
    if (word == name(type)) return type;
  }
  throw CLI::ValidationError("format", "'" + text + "'; accepted: same, int8, int4, or K/V as in int8/int4");
}

}  // namespace

KvFormat parse_format(const std::string& text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) return {parse_type(text, text), parse_type(text, text)};
  return {parse_type(text.substr(0, slash), text), parse_type(text.substr(slash + 1), text)};
}

void add_config_options(CLI::App& command, CacheConfig& config) {
  command.add_option("--kv-heads", config.kv_heads, "heads of keys and values on this rank")->capture_default_str();
  command.add_option("--head-dim", config.head_dim, "channels of a head")->capture_default_str();
  command.add_option("--block-len", config.block_len, "tokens of a block")->capture_default_str();
  command.add_option("--dtype", config.dtype, "compute type: f32, f16 or bf16")
      ->transform(CLI::CheckedTransformer(kDTypes))
      ->default_str(name(config.dtype));
}

namespace {

int run(int argc, char** argv) {
  CLI::App app{"pagedkv: paged, quantised K/V cache"};
  app.set_version_flag("--version", version());
  app.require_subcommand(1);
  add_layout_command(app);
  add_verify_command(app);
  add_bench_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return 0;
}

}  // namespace
}  // namespace pagedkv::tool

int main(int argc, char** argv) {
  try {
    return pagedkv::tool::run(argc, argv);
  } catch (const std::exception& e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
}
