#include "report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

namespace llama {
namespace {

constexpr std::size_t kColumns = 9;
using Row = std::array<std::string, kColumns>;

[[gnu::format(printf, 1, 2)]] std::string print(const char* format, ...) {
  std::array<char, 96> buffer{};
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer.data(), buffer.size(), format, arguments);
  va_end(arguments);
  return buffer.data();
}

std::string to_text(const Estimate& estimate) {
  if (std::isnan(estimate.standard_error)) return print("%+.4f", estimate.value);
  return print("%+.4f ± %.4f", estimate.value, estimate.standard_error);
}

Row to_row(const FormatResult& r, bool is_reference) {
  return {label(r.format),
          print("%.2f", r.bits_per_element),
          print("%.0f", r.bytes_per_token),
          print("%.3f", r.perplexity),
          is_reference ? "reference" : to_text(r.difference),
          is_reference ? "0" : print("%.2e", r.mean_kl),
          print("%.2f %%", 100.0 * r.top1_agreement),
          print("%.0f", r.prefill_rate),
          print("%.1f", r.decode_rate)};
}

/// Characters on the screen, for UTF-8 whose characters are all one column wide.
std::size_t columns_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

}  // namespace

std::string table(std::span<const FormatResult> results) {
  std::vector<Row> rows{{"format", "bits", "bytes/token", "perplexity", "difference", "mean KL", "same top-1",
                         "prefill t/s", "decode t/s"}};
  for (const FormatResult& r : results) rows.push_back(to_row(r, &r == &results.front()));

  std::array<std::size_t, kColumns> width{};
  for (const Row& row : rows) {
    for (std::size_t c = 0; c < kColumns; ++c) width[c] = std::max(width[c], columns_of(row[c]));
  }
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < kColumns; ++c) {
      const std::size_t pad = width[c] - columns_of(rows[r][c]);
      out.append(c == 0 ? "| " : " | ");
      if (c > 0) out.append(pad, ' ');
      out.append(rows[r][c]);
      if (c == 0) out.append(pad, ' ');
    }
    out += " |\n";
    if (r > 0) continue;
    for (std::size_t c = 0; c < kColumns; ++c) {
      out.append(c == 0 ? "| " : " | ").append(c == 0 ? width[c] : width[c] - 1, '-').append(c == 0 ? "" : ":");
    }
    out += " |\n";
  }
  return out;
}

std::string samples(std::span<const FormatResult> results, std::span<const Prompt> prompts,
                    const Vocabulary& vocabulary) {
  std::string out;
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    if (p > 0) out += '\n';
    out.append("> ").append(prompts[p].text).append("\n");
    for (const FormatResult& r : results) {
      if (p >= r.samples.size()) continue;
      std::string text = vocabulary.text(r.samples[p]);
      std::replace(text.begin(), text.end(), '\n', ' ');
      out.append(print("  %-18s", label(r.format).c_str())).append(text).append("\n");
    }
  }
  return out;
}

std::string to_json(std::span<const FormatResult> results, std::span<const Prompt> prompts,
                    const Vocabulary& vocabulary, const Settings& settings, const Setup& setup) {
  using nlohmann::json;
  json document{
      {"model", setup.model},
      {"text", setup.text},
      {"cpu_target", setup.cpu_target},
      {"matmul", setup.matmul},
      {"threads", settings.threads},
      {"seconds", setup.seconds},
      {"windows", settings.windows},
      {"window_tokens", settings.window},
      {"stride_tokens", settings.stride},
      {"text_tokens", settings.text_tokens()},
      {"block_len", settings.block_len},
      {"prefill_chunk", settings.chunk},
      {"decode_batch", settings.decode_batch},
      {"decode_context", settings.window},
  };
  document["formats"] = json::array();
  for (const FormatResult& r : results) {
    json entry{
        {"format", label(r.format)},
        {"dtype", name(r.format.dtype)},
        {"k", name(r.format.kv.k)},
        {"v", name(r.format.kv.v)},
        {"bits_per_element", r.bits_per_element},
        {"cache_bytes_per_token", r.bytes_per_token},
        {"perplexity", r.perplexity},
        {"perplexity_difference", r.difference.value},
        {"perplexity_difference_standard_error", r.difference.standard_error},
        {"mean_kl_nats", r.mean_kl},
        {"top1_agreement", r.top1_agreement},
        {"prefill_tokens_per_second", r.prefill_rate},
        {"decode_tokens_per_second", r.decode_rate},
    };
    entry["samples"] = json::array();
    for (std::size_t p = 0; p < r.samples.size(); ++p) {
      entry["samples"].push_back({{"prompt", prompts[p].text}, {"continuation", vocabulary.text(r.samples[p])}});
    }
    document["formats"].push_back(std::move(entry));
  }
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace llama
