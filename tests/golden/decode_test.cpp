// Decode attention against outputs recorded from TurboMind.
//
// Our decode reads the cache that the recording read: its codes follow from the inputs by its encoder's arithmetic. The
// recording rounds each dequantised element, each weight p and its output to f16, and works in float32 otherwise; ours
// rounds the output alone.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "golden/decode_backend.h"
#include "golden/golden_case.h"
#include "oracle/attention.h"
#include "oracle/number.h"
#include "oracle/quant.h"
#include "pagedkv/cache_config.h"
#include "support/memory.h"

namespace golden {
namespace {

constexpr oracle::Type kF16 = oracle::Type::f16;

struct DecodeCase {
  std::string name;
  int policy = 0;
  int q_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int block_len = 0;
  std::vector<int> k_len;
};

std::vector<DecodeCase> decode_cases() {
  std::ifstream file(data_folder() + "/manifest.jsonl");
  std::vector<DecodeCase> cases;
  for (std::string line; std::getline(file, line);) {
    const auto j = nlohmann::json::parse(line);
    if (j.value("kind", "") != "decode") continue;
    for (const char* option : {"bias", "sinks", "window", "rope_type"}) {
      if (j.at(option) != 0) throw std::runtime_error(std::string("a recorded case has ") + option);
    }
    cases.push_back({j.at("name"), j.at("quant_policy"), j.at("q_heads"), j.at("kv_heads"), j.at("head_dim"),
                     j.at("block_len"), j.at("k_len").get<std::vector<int>>()});
  }
  return cases;
}

support::NpyArray read(const std::string& name) {
  return support::read_npy(data_folder() + "/" + name + ".npy");
}

double element(const support::NpyArray& a, std::int64_t i) {
  return oracle::load(kF16, a.bytes.data() + 2 * i);
}

using Row = std::vector<double>;

/// x as the original's f16 encoder stores it: statistics and codes in f16 arithmetic.
oracle::QuantRow original_codes(const Row& x, int bits) {
  const double levels = (1 << bits) - 1;
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  oracle::QuantRow row;
  row.zero = *low;
  row.scale = oracle::round_to(kF16, (*high - *low) / levels);
  const double inverse = oracle::round_to(kF16, 1 / row.scale);
  for (const double e : x) {
    const double steps = oracle::round_to(kF16, oracle::round_to(kF16, e - row.zero) * inverse);
    row.codes.push_back(static_cast<int>(std::clamp(std::nearbyint(steps), 0.0, levels)));
  }
  return row;
}

/// The inputs of a case, and what comes out.
class Recorded {
 public:
  explicit Recorded(const DecodeCase& c)
      : c_(c), hist_(read("dec_f16_hist")), qkv_(read("dec_f16_qkv")), out_(read(c.name + "_out")) {}

  Row row(int b, int token, int head, bool value) const {
    const int column = (value ? c_.kv_heads : 0) + head;
    std::int64_t first = 0;
    const support::NpyArray& from = token == k_len(b) - 1 ? qkv_ : hist_;
    if (token == k_len(b) - 1) {
      first = std::int64_t{b} * (c_.q_heads + 2 * c_.kv_heads) + c_.q_heads + column;
    } else {
      for (int i = 0; i < b; ++i) first += k_len(i) - 1;
      first = (first + token) * 2 * c_.kv_heads + column;
    }
    return elements(from, first);
  }
  Row query(int b, int head) const { return elements(qkv_, std::int64_t{b} * (c_.q_heads + 2 * c_.kv_heads) + head); }
  Row output(int b, int head) const { return elements(out_, std::int64_t{b} * c_.q_heads + head); }
  int k_len(int b) const { return c_.k_len[static_cast<std::size_t>(b)]; }

 private:
  Row elements(const support::NpyArray& a, std::int64_t row) const {
    Row x;
    for (int d = 0; d < c_.head_dim; ++d) x.push_back(element(a, row * c_.head_dim + d));
    return x;
  }

  const DecodeCase& c_;
  support::NpyArray hist_;
  support::NpyArray qkv_;
  support::NpyArray out_;
};

/// Our decode of a case.
class Ours {
 public:
  Ours(const DecodeCase& c, const Recorded& recorded) : c_(c) {
    pagedkv::CacheConfig config;
    config.kv_heads = c.kv_heads;
    config.head_dim = c.head_dim;
    config.block_len = c.block_len;
    config.format = pagedkv::format_from_quant_policy(c.policy);
    layout_ = pagedkv::make_layout(config);
    const int batch = static_cast<int>(c.k_len.size());
    std::vector<std::int32_t> cu_q = {0};
    cu_k_ = {0};
    cu_blocks_ = {0};
    for (const int n : c.k_len) {
      cu_q.push_back(cu_q.back() + 1);
      cu_k_.push_back(cu_k_.back() + n);
      cu_blocks_.push_back(cu_blocks_.back() + (n + c.block_len - 1) / c.block_len);
    }
    cache_ = std::make_unique<support::Poisoned>(static_cast<std::size_t>(cu_blocks_.back() * layout_.block_bytes));
    for (int i = 0; i < cu_blocks_.back(); ++i) blocks_.push_back(cache_->data() + i * layout_.block_bytes);

    support::Tensor q(kF16, std::int64_t{batch} * c.q_heads * c.head_dim);
    for (int b = 0; b < batch; ++b) {
      for (int t = 0; t < recorded.k_len(b); ++t) {
        for (int h = 0; h < c.kv_heads; ++h) {
          for (const bool value : {false, true}) store_row(b, t, h, value, recorded.row(b, t, h, value));
        }
      }
      for (int h = 0; h < c.q_heads; ++h) {
        const Row row = recorded.query(b, h);
        for (int d = 0; d < c.head_dim; ++d) {
          q.set((std::int64_t{b} * c.q_heads + h) * c.head_dim + d, row[static_cast<std::size_t>(d)]);
        }
      }
    }

    pagedkv::DecodeArgs a;
    a.layout = layout_;
    a.table.pointers = blocks_.data();
    a.table.cu_blocks = cu_blocks_.data();
    a.batch = batch;
    a.cu_q = cu_q.data();
    a.cu_k = cu_k_.data();
    a.max_total_q = batch;
    a.max_q_len = 1;
    a.max_k_len = *std::max_element(c.k_len.begin(), c.k_len.end());
    a.q_heads = c.q_heads;
    a.q = q.at(0);
    a.q_strides = pagedkv::packed_strides(c.q_heads, c.head_dim);
    o_ = std::make_unique<support::Tensor>(kF16, std::int64_t{batch} * c.q_heads * c.head_dim);
    a.o = o_->at(0);
    a.o_strides = a.q_strides;
    run_decode(a, cache_->data());
  }

  Row output(int b, int head) const {
    Row x;
    const std::int64_t row = std::int64_t{b} * c_.q_heads + head;
    for (int d = 0; d < c_.head_dim; ++d) x.push_back(o_->get(row * c_.head_dim + d));
    return x;
  }

 private:
  void store_row(int b, int token, int head, bool value, const Row& x) {
    char* block = blocks_[static_cast<std::size_t>(cu_blocks_[static_cast<std::size_t>(b)] + token / c_.block_len)];
    const int in_block = token % c_.block_len;
    char* data = block + (value ? layout_.v_data(0, head, in_block) : layout_.k_data(0, head, in_block));
    char* params = block + (value ? layout_.v_param(0, head, in_block) : layout_.k_param(0, head, in_block));
    if (c_.policy == 0) {
      for (std::size_t d = 0; d < x.size(); ++d) oracle::store(kF16, data + 2 * d, x[d]);
      return;
    }
    const oracle::QuantRow row = original_codes(x, c_.policy);
    oracle::store(kF16, params, row.scale);
    oracle::store(kF16, params + 2, row.zero);
    std::memset(data, 0, x.size() * static_cast<std::size_t>(c_.policy) / 8);
    for (std::size_t d = 0; d < x.size(); ++d) {
      const auto code = static_cast<unsigned>(row.codes[d]);
      if (c_.policy == 8) {
        data[d] = static_cast<char>(code);
      } else {  // 8 elements in 4 bytes: nibbles e0 e2 e4 e6 e1 e3 e5 e7
        const std::size_t nibble = d % 8 / 2 + d % 2 * 4;
        char& byte = data[d / 8 * 4 + nibble / 2];
        byte = static_cast<char>(static_cast<unsigned char>(byte) | (code << (nibble % 2 * 4)));
      }
    }
  }

  const DecodeCase& c_;
  pagedkv::BlockLayout layout_;
  std::vector<std::int32_t> cu_k_;
  std::vector<std::int32_t> cu_blocks_;
  std::unique_ptr<support::Poisoned> cache_;
  std::vector<char*> blocks_;
  std::unique_ptr<support::Tensor> o_;
};

using Rows = std::vector<Row>;

std::vector<std::span<const double>> spans(const Rows& rows) {
  return {rows.begin(), rows.end()};
}

class GoldenDecode : public testing::TestWithParam<DecodeCase> {};

TEST_P(GoldenDecode, AgreesWithTheRecordedOutput) {
  if (const std::string reason = why_not_run(); !reason.empty()) GTEST_SKIP() << reason;
  const DecodeCase& c = GetParam();
  const Recorded recorded(c);
  const Ours ours(c, recorded);
  const auto dim = static_cast<std::size_t>(c.head_dim);
  oracle::AttentionOptions options;
  options.scale = 1 / std::sqrt(static_cast<double>(c.head_dim));
  for (int b = 0; b < static_cast<int>(c.k_len.size()); ++b) {
    for (int h = 0; h < c.q_heads; ++h) {
      SCOPED_TRACE("sequence " + std::to_string(b) + " head " + std::to_string(h));
      Rows exact[2];    // K, V as the bytes say
      Rows rounded[2];  // as the recording read them
      Rows magnitudes;  // of V
      Rows distances;   // of V from the offset of its codes: what our probabilities multiply
      for (int t = 0; t < recorded.k_len(b); ++t) {
        for (const bool value : {false, true}) {
          Row x = recorded.row(b, t, h / (c.q_heads / c.kv_heads), value);
          Row distance = x;
          if (c.policy != 0) {
            const oracle::QuantRow codes = original_codes(x, c.policy);
            for (std::size_t d = 0; d < dim; ++d) {
              distance[d] = codes.codes[d] * codes.scale;
              x[d] = distance[d] + codes.zero;
            }
          }
          for (double& e : distance) e = std::abs(e);
          if (value) distances.push_back(distance);
          exact[value].push_back(x);
          for (double& e : x) e = oracle::round_to(kF16, e);
          rounded[value].push_back(x);
        }
        Row& magnitude = magnitudes.emplace_back(rounded[1].back());
        for (double& e : magnitude) e = std::abs(e);
      }
      const Row q = recorded.query(b, h);
      const Row theirs = oracle::attend(q, spans(rounded[0]), spans(rounded[1]), dim, options).o;
      const Row weighted = oracle::attend(q, spans(rounded[0]), spans(magnitudes), dim, options).o;
      const Row weighted_codes = oracle::attend(q, spans(exact[0]), spans(distances), dim, options).o;
      const Row truth = oracle::attend(q, spans(exact[0]), spans(exact[1]), dim, options).o;
      const Row naive = oracle::attend_in_float(q, spans(exact[0]), spans(exact[1]), dim, options).o;
      double float_error = 0;  // of plain float32 arithmetic
      for (std::size_t d = 0; d < dim; ++d) float_error = std::max(float_error, std::abs(naive[d] - truth[d]));

      const Row out = recorded.output(b, h);
      const Row got = ours.output(b, h);
      for (std::size_t d = 0; d < dim; ++d) {
        const double their_error = 0x1p-11 * weighted[d] + 2 * float_error + oracle::half_ulp(kF16, theirs[d]);
        ASSERT_LE(std::abs(out[d] - theirs[d]), their_error) << d;  // else the cache is not the one that it read
        const double our_error =
            probability_error() * weighted_codes[d] + 2 * float_error + oracle::half_ulp(kF16, truth[d]);
        ASSERT_LE(std::abs(got[d] - out[d]), their_error + std::abs(theirs[d] - truth[d]) + our_error) << d;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Recorded, GoldenDecode, testing::ValuesIn(decode_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace golden
