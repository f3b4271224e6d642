// Runs a Llama model with its keys and values in pagedkv, once per cache format, and prints what each format costs.

#include <omp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>

#include "check.h"
#include "pagedkv/error.h"
#include "report.h"

namespace {

using pagedkv::Error;
using pagedkv::ErrorCode;

struct Options {
  std::string model, text, prompts, vocabulary, check, json;
  std::string model_name, text_name;
  std::vector<std::string> formats{"f32", "bf16", "f16", "int8", "int4", "int8/int4"};
  std::string matmul = "f32";
  std::string quant_dtype = "f16";
  bool quick = false;
  llama::Settings settings;
};

/// A line that is seen at once.
[[gnu::format(printf, 1, 2)]] void say(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::vprintf(format, arguments);
  va_end(arguments);
  std::putchar('\n');
  std::fflush(stdout);
}

void declare(CLI::App& app, Options& o) {
  llama::Settings& s = o.settings;
  const char* files = "Files that ./dev demo prepares";
  app.add_option("--model", o.model, "Folder with config.json and model.safetensors")->required()->group(files);
  app.add_option("--text-tokens", o.text, "Token file of the text")->required()->group(files);
  app.add_option("--model-name", o.model_name, "What to call the model (default: its folder)")->group(files);
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
  if (o.model_name.empty()) o.model_name = o.model;
  if (o.text_name.empty()) o.text_name = std::filesystem::path(o.text).stem().string();
  const auto quant_dtype = llama::parse_format(o.quant_dtype, pagedkv::DType::f16).dtype;
  for (const std::string& format : o.formats) s.formats.push_back(llama::parse_format(format, quant_dtype));
}

/// Everything that is read from files, the model's weights aside.
struct Inputs {
  explicit Inputs(const Options& o)
      : config(llama::read_config(o.model + "/config.json")),
        text(llama::read_tokens(*llama::TensorFile(o.text), config.vocab_size)) {
    if (std::ssize(text) < o.settings.text_tokens()) {
      throw Error(ErrorCode::invalid_argument, "--windows", std::to_string(o.settings.windows),
                  "windows that fit into the text: they cover " + std::to_string(o.settings.text_tokens()) +
                      " tokens, the text has " + std::to_string(text.size()));
    }
    if (!o.prompts.empty()) prompts = llama::read_prompts(*llama::TensorFile(o.prompts), config.vocab_size);
    if (!o.vocabulary.empty()) vocabulary = llama::Vocabulary(*llama::TensorFile(o.vocabulary));
    if (!o.json.empty() && !std::ofstream(o.json, std::ios::app)) {
      throw Error(ErrorCode::bad_file, "--json", o.json, "a file that can be written");
    }
  }

  llama::Config config;
  std::vector<std::int32_t> text;
  std::vector<llama::Prompt> prompts;
  llama::Vocabulary vocabulary;
};

void check(llama::Model& model, const Options& o) {
  const llama::Settings& s = o.settings;
  const auto result = llama::check_logits(model, *llama::TensorFile(o.check), s.chunk, s.block_len, s.threads);
  say("logits: %lld compared with a float64 forward pass; largest difference %.1e, allowed %.1e",
      static_cast<long long>(result.compared), result.difference, result.allowed);
  if (!result.passed()) {
    throw Error(ErrorCode::invalid_state, "logits", "wrong", "the model that --check was made for");
  }
}

void explain(const llama::Settings& s) {
  say("bits: of a stored element of a key or value, its share of scale and zero included");
  say("difference: of the perplexity from the reference's, ± its paired standard error (means of %zu-token blocks)",
      llama::kErrorBlock);
  say("mean KL (nats), same top-1: next-token distribution against the reference's, over all scored tokens");
  say("prefill: tokens/s of all layers, %d tokens at a time, output layer not counted", s.chunk);
  if (s.decode_batch > 0) {
    say("decode: tokens/s of %d sequences that together continue one shared context of %d tokens", s.decode_batch,
        s.window);
  }
}

void run(const Options& o) {
  const auto start = std::chrono::steady_clock::now();
  const llama::Settings& s = o.settings;
  omp_set_num_threads(s.threads);
  const bool bf16 = o.matmul == "bf16" || (o.matmul == "auto" && llama::has_native_bf16());
  const auto matmul = bf16 ? llama::MatmulType::bf16 : llama::MatmulType::f32;
  llama::Setup setup{o.model_name, o.text_name, std::string(pagedkv::cpu::target()), std::string(llama::name(matmul)),
                     0.0};

  const Inputs in(o);
  say("model: %s", setup.model.c_str());
  say("       %d layers, %d query and %d KV heads of %d channels", in.config.layers, in.config.q_heads,
      in.config.kv_heads, in.config.head_dim);
  say("text:  %s", setup.text.c_str());
  say("       %lld tokens in windows of %d, stride %d", static_cast<long long>(s.text_tokens()), s.window, s.stride);
  say("CPU:   %d threads, pagedkv on %s, matmuls in %s", s.threads, setup.cpu_target.c_str(), setup.matmul.c_str());
  llama::Model model(in.config, *llama::TensorFile(o.model + "/model.safetensors"), matmul);
  if (!o.check.empty() && matmul == llama::MatmulType::f32) check(model, o);

  const auto progress = [](const std::string& line) { say("%s", line.c_str()); };
  const auto results = llama::evaluate(model, s, in.text, in.prompts, progress);
  setup.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  say("\n%s", llama::table(results).c_str());
  explain(s);
  if (!in.prompts.empty()) say("\n%s", llama::samples(results, in.prompts, in.vocabulary).c_str());
  say("done in %.0f s", setup.seconds);
  if (o.json.empty()) return;
  std::ofstream out(o.json);
  out << llama::to_json(results, in.prompts, in.vocabulary, s, setup);
  if (!out.flush()) throw Error(ErrorCode::bad_file, "--json", o.json, "a file that can be written");
  say("results: %s", o.json.c_str());
}

/// The matmuls' threads (OpenMP) must not spin while the library's (oneTBB) work on the same cores. GNU OpenMP reads
/// its settings before main() begins, hence the second start.
void make_matmul_threads_sleep(char** argv) {
  const char* const setting = "OMP_WAIT_POLICY";
  if (std::getenv(setting) != nullptr) return;
  setenv(setting, "passive", 1);
  std::error_code unreadable;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", unreadable);
  execv(self.c_str(), argv);  // if that fails, the run goes on and is only slower
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
