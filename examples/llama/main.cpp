// Runs a Llama model with its keys and values in pagedkv, once per cache format, and prints what each format costs.

#include <omp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "check.h"
#include "pagedkv/error.h"
#include "report.h"

namespace {

using pagedkv::Error;
using pagedkv::ErrorCode;

struct Options {
  std::string model, text, prompts, vocabulary, check, json;
  std::string text_name;
  std::vector<std::string> formats{"f32", "bf16", "f16", "int8", "int4", "int8/int4"};
  std::string matmul = "f32";
  std::string quant_dtype = "f16";
  bool quick = false;
  llama::Settings settings;
};

void say(const std::string& line) {
  std::puts(line.c_str());
  std::fflush(stdout);
}

void declare(CLI::App& app, Options& o) {
  llama::Settings& s = o.settings;
  const char* files = "Files that ./dev demo prepares";
  app.add_option("--model", o.model, "Folder with config.json and model.safetensors")->required()->group(files);
  app.add_option("--text-tokens", o.text, "Token file of the text")->required()->group(files);
  app.add_option("--text-name", o.text_name, "What to call the text (default: its file name)")->group(files);
  app.add_option("--prompt-tokens", o.prompts, "Token file of the prompts")->group(files);
  app.add_option("--vocabulary", o.vocabulary, "File with the bytes of every token; needed for prompts")->group(files);
  app.add_option("--check", o.check, "Expected logits, compared with before anything else")->group(files);
  app.add_option("--json", o.json, "Where to write the results as JSON");
  app.add_option("--formats", o.formats, "Cache formats, the reference first: f32 f16 bf16 int8 int4 or KEYS/VALUES")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--windows", s.windows, "Windows of the text to run")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--window", s.window, "Tokens of a window")->check(CLI::Range(2, 1'000'000))->capture_default_str();
  app.add_option("--stride", s.stride, "Tokens between the beginnings of windows, less than a window")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--threads", s.threads, "Threads; 0: one per core")->check(CLI::Range(0, 4096))->capture_default_str();
  app.add_option("--matmul", o.matmul, "Type of the matmuls: f32, bf16, or auto (bf16 where the CPU has it)")
      ->check(CLI::IsMember({"f32", "bf16", "auto"}))
      ->capture_default_str();
  app.add_option("--quant-dtype", o.quant_dtype, "Compute type of formats that name none")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  app.add_option("--block-len", s.block_len, "Tokens of a cache block")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--chunk", s.chunk, "New tokens of one forward pass")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--decode-batch", s.decode_batch, "Sequences in the decode measurement; 0: do not measure")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--decode-steps", s.decode_steps, "Timed steps of the decode measurement")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  app.add_option("--new-tokens", s.new_tokens, "Length of the sample continuations; 0: none")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  app.add_flag("--quick", o.quick, "A short run: 2 windows, continuations of 24 tokens");
}

void finish(Options& o, const CLI::App& app) {
  llama::Settings& s = o.settings;
  if (o.quick) {
    if (app.count("--windows") == 0) s.windows = 2;
    if (app.count("--new-tokens") == 0) s.new_tokens = 24;
  }
  if (s.stride >= s.window) {
    throw Error(ErrorCode::invalid_argument, "--stride", std::to_string(s.stride),
                "less than --window " + std::to_string(s.window));
  }
  if (!o.prompts.empty() && o.vocabulary.empty()) {
    throw Error(ErrorCode::invalid_argument, "--vocabulary", "missing", "a file, because --prompt-tokens is given");
  }
  if (s.threads == 0) s.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  if (o.text_name.empty()) o.text_name = std::filesystem::path(o.text).stem().string();
  const auto quant_dtype = llama::parse_format(o.quant_dtype, pagedkv::DType::f16).dtype;
  for (const std::string& format : o.formats) s.formats.push_back(llama::parse_format(format, quant_dtype));
}

void run(const Options& o) {
  const auto start = std::chrono::steady_clock::now();
  const llama::Settings& s = o.settings;
  omp_set_num_threads(s.threads);

  const bool bf16 = o.matmul == "bf16" || (o.matmul == "auto" && llama::has_native_bf16());
  const auto matmul = bf16 ? llama::MatmulType::bf16 : llama::MatmulType::f32;
  const llama::Config config = llama::read_config(o.model + "/config.json");
  const llama::TensorFile text_file(o.text);
  const auto text = llama::read_tokens(*text_file, config.vocab_size);
  if (std::ssize(text) < s.text_tokens()) {
    throw Error(ErrorCode::invalid_argument, "--windows", std::to_string(s.windows),
                "windows that fit into the text: they cover " + std::to_string(s.text_tokens()) +
                    " tokens, the text has " + std::to_string(text.size()));
  }
  std::vector<llama::Prompt> prompts;
  if (!o.prompts.empty()) prompts = llama::read_prompts(*llama::TensorFile(o.prompts), config.vocab_size);
  std::optional<llama::Vocabulary> vocabulary;
  if (!o.vocabulary.empty()) vocabulary.emplace(*llama::TensorFile(o.vocabulary));

  llama::Model model(config, *llama::TensorFile(o.model + "/model.safetensors"), matmul);
  char line[256];
  std::snprintf(line, sizeof line, "model: %s, %d layers, %d query and %d KV heads of %d channels", o.model.c_str(),
                config.layers, config.q_heads, config.kv_heads, config.head_dim);
  say(line);
  std::snprintf(line, sizeof line, "text: %s, %lld tokens in %d windows of %d, stride %d", o.text_name.c_str(),
                static_cast<long long>(s.text_tokens()), s.windows, s.window, s.stride);
  say(line);
  std::snprintf(line, sizeof line, "%d threads, pagedkv on %s, matmuls in %s", s.threads,
                std::string(pagedkv::cpu::target()).c_str(), std::string(llama::name(matmul)).c_str());
  say(line);

  if (!o.check.empty() && matmul == llama::MatmulType::f32) {
    const auto check = llama::check_logits(model, *llama::TensorFile(o.check), s.chunk, s.block_len, s.threads);
    std::snprintf(line, sizeof line,
                  "logits: %lld compared with a float64 forward pass, largest difference %.1e (allowed %.1e)",
                  static_cast<long long>(check.compared), check.difference, check.allowed);
    say(line);
    if (!check.passed())
      throw Error(ErrorCode::invalid_state, "logits", "wrong", "the model that --check was made for");
  }

  const auto results = llama::evaluate(model, s, text, prompts, say);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  say("\n" + llama::table(results));
  if (s.decode_batch > 0) {
    std::snprintf(line, sizeof line, "decode: %d sequences that continue a shared context of %d tokens", s.decode_batch,
                  s.window);
    say(line);
  }
  const llama::Vocabulary none = vocabulary.value_or(llama::Vocabulary());
  if (!prompts.empty()) say("\n" + llama::samples(results, prompts, none));
  std::snprintf(line, sizeof line, "%.0f s", seconds.count());
  say(line);
  if (o.json.empty()) return;
  const llama::Setup setup{o.model, o.text_name, std::string(pagedkv::cpu::target()), std::string(llama::name(matmul)),
                           seconds.count()};
  std::ofstream out(o.json);
  out << llama::to_json(results, prompts, none, s, setup);
  if (!out.flush()) throw Error(ErrorCode::bad_file, "--json", o.json, "a file that can be written");
  say("results: " + o.json);
}

/// The matmuls' threads (OpenMP) must not spin while the library's (oneTBB) work on the same cores. GNU OpenMP reads
/// its settings before main() begins, hence the second start.
void make_matmul_threads_sleep(char** argv) {
  const char* const setting = "OMP_WAIT_POLICY";
  if (std::getenv(setting) != nullptr) return;
  setenv(setting, "passive", 1);
  execv("/proc/self/exe", argv);  // if that fails, the run goes on and is only slower
}

}  // namespace

int main(int argc, char** argv) {
  make_matmul_threads_sleep(argv);
  CLI::App app("Runs a Llama model over pagedkv's cache formats and compares them.", "pagedkv-llama");
  app.get_formatter()->column_width(34);
  Options options;
  declare(app, options);
  CLI11_PARSE(app, argc, argv);
  try {
    finish(options, app);
    run(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
