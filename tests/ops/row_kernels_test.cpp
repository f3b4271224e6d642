// Every SIMD target against the scalar row loops, bit for bit, on rows made to be difficult.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpu/rows.h"
#include "pagedkv/core/half.h"
#include "pagedkv/cpu.h"

namespace pagedkv::cpu {
namespace {

constexpr int kDims[] = {16, 32, 48, 64, 80, 96, 112, 128, 192, 256, 576, 1024};
constexpr DType kTypes[] = {DType::f32, DType::f16, DType::bf16};
constexpr KvType kStored[] = {KvType::same, KvType::int8, KvType::int4};
constexpr char kPoison = '\xCD';

/// The SIMD targets of this machine.
std::vector<Target> simd_targets() {
  std::vector<Target> found;
  const std::string before(target());
  for (const std::string_view name : targets()) {
    set_target(name);
    if (current_target() != Target::scalar) found.push_back(current_target());
  }
  set_target(before);
  return found;
}

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }
  int below(int n) { return static_cast<int>(engine_() % static_cast<std::uint32_t>(n)); }
  float normal() { return normal_(engine_); }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

/// Poisoned memory, aligned to 64 bytes (so that rows may be streamed), or to 16 and to no more.
class Bytes {
 public:
  Bytes(std::size_t n, bool lines) : size_(n), memory_(n + 128, kPoison) {
    data_ = memory_.data() + (64 - reinterpret_cast<std::uintptr_t>(memory_.data()) % 64) + (lines ? 0 : 16);
  }
  char* data() { return data_; }
  bool operator==(const Bytes& other) const {
    return size_ == other.size_ && std::memcmp(data_, other.data_, size_) == 0;
  }

 private:
  std::size_t size_;
  std::vector<char> memory_;
  char* data_;
};

void put(DType t, void* p, float x) {
  if (t == DType::f32) std::memcpy(p, &x, 4);
  if (t == DType::f16) {
    const half_t h = core::from_float<half_t>(x);
    std::memcpy(p, &h, 2);
  }
  if (t == DType::bf16) {
    const bfloat16_t b = core::from_float<bfloat16_t>(x);
    std::memcpy(p, &b, 2);
  }
}

/// One row of some kind: usual, offset, constant, zeros of both signs, tiny, huge, any bits at all, one odd element.
void fill_row(DType t, int dim, int kind, Random& random, char* row) {
  const int size = dtype_bytes(t);
  const float scale = std::ldexp(1.0F, random.below(40) - 20);
  const float offset = kind == 1 ? std::ldexp(random.normal(), random.below(24)) : 0.0F;
  const float constant = random.normal();
  for (int d = 0; d < dim; ++d) {
    char* p = row + d * size;
    switch (kind) {
      case 0:
      case 1:
        put(t, p, random.normal() * scale + offset);
        break;
      case 2:
        put(t, p, constant);
        break;
      case 3:
        put(t, p, random.below(2) == 0 ? 0.0F : -0.0F);
        break;
      case 4: {
        const std::uint32_t bits = random.bits() & (t == DType::f16 ? 0x800f000fu : 0x803f003fu);  // subnormal
        std::memcpy(p, &bits, static_cast<std::size_t>(size));
        break;
      }
      case 5:
        put(t, p, random.normal() * (t == DType::f16 ? 3e4F : 1e38F));
        break;
      case 6: {
        const std::uint32_t bits = random.bits();
        std::memcpy(p, &bits, static_cast<std::size_t>(size));
        break;
      }
      default:
        put(t, p, random.normal());
    }
  }
  if (kind == 7) {  // NaN or infinity somewhere
    const std::uint32_t odd[] = {0x7fc00001u, 0xffc12345u, 0x7f800001u, 0x7f800000u, 0xff800000u};
    float x = 0;
    std::memcpy(&x, &odd[random.below(5)], 4);
    put(t, row + random.below(dim) * size, x);
  }
}

constexpr int kKinds = 8;

struct RowCase {
  DType t;
  KvType kv;
  int dim;
};

std::vector<RowCase> row_cases() {
  std::vector<RowCase> all;
  for (const DType t : kTypes) {
    for (const KvType kv : kStored) {
      for (const int dim : kDims) all.push_back({t, kv, dim});
    }
  }
  return all;
}

std::string name_of(const testing::TestParamInfo<RowCase>& info) {
  return std::string(name(info.param.t)) + "_" + name(info.param.kv) + "_" + std::to_string(info.param.dim);
}

class Rows : public testing::TestWithParam<RowCase> {};

TEST_P(Rows, WrittenAlikeByEveryTarget) {
  const auto [t, kv, dim] = GetParam();
  const int size = dtype_bytes(t);
  const std::int64_t row_bytes = dim * kv_bits(kv, t) / 8;
  Random random(static_cast<std::uint32_t>(dim) * 31 + static_cast<std::uint32_t>(kv));
  const int rows = 3;
  for (int trial = 0; trial < 40 * kKinds; ++trial) {
    const bool lines = random.below(2) == 0;
    Bytes x(static_cast<std::size_t>(rows * dim * size), false);
    Bytes bias(static_cast<std::size_t>(rows * dim * size), false);
    for (int r = 0; r < rows; ++r) {
      fill_row(t, dim, trial % kKinds, random, x.data() + r * dim * size);
      fill_row(t, dim, random.below(2) == 0 ? 0 : random.below(kKinds), random, bias.data() + r * dim * size);
    }
    WriteRows w;
    w.x = x.data();
    w.x_stride = dim * size;
    if (random.below(2) == 0) w.bias = bias.data();
    RotationRow rotation;
    w.pairs = random.below(2) == 0 ? RopePairs::interleaved : RopePairs::half_split;
    const int unit = w.pairs == RopePairs::interleaved ? 8 : 16;
    if (random.below(2) == 0) {
      w.rope_dim = unit * (1 + random.below(std::min(dim, 256) / unit));
      std::uint32_t phase[core::kMaxRopePairs];
      for (auto& p : phase) p = random.bits();
      kScalarWriteKernels.rotation(phase, w.rope_dim / 2, w.pairs, 1.0F + 0.01F * static_cast<float>(random.below(50)),
                                   rotation);
      w.rotation = &rotation;
    }
    w.rows = rows;
    w.dim = dim;
    w.data_stride = row_bytes + (lines ? 64 : 16);
    w.param_stride = 16;
    w.stream = random.below(2) == 0;
    const auto write = [&](const WriteKernels& kernels, Bytes& data, Bytes& param) {
      w.data = data.data();
      w.param = param.data();
      kernels.rows(t, kv)(w);
      kernels.finish();
    };
    Bytes data(static_cast<std::size_t>(rows * w.data_stride), lines);
    Bytes param(static_cast<std::size_t>(rows * w.param_stride), lines);
    write(kScalarWriteKernels, data, param);
    for (const Target target : simd_targets()) {
      Bytes simd_data(static_cast<std::size_t>(rows * w.data_stride), lines);
      Bytes simd_param(static_cast<std::size_t>(rows * w.param_stride), lines);
      write(write_kernels(target), simd_data, simd_param);
      ASSERT_TRUE(data == simd_data) << "target " << static_cast<int>(target) << " trial " << trial;
      ASSERT_TRUE(param == simd_param) << "target " << static_cast<int>(target) << " trial " << trial;
    }
  }
}

TEST_P(Rows, ReadAlikeByEveryTarget) {
  const auto [t, kv, dim] = GetParam();
  const int size = dtype_bytes(t);
  const std::int64_t row_bytes = dim * kv_bits(kv, t) / 8;
  Random random(static_cast<std::uint32_t>(dim) * 37 + static_cast<std::uint32_t>(kv));
  const int rows = 3;
  for (int trial = 0; trial < 400; ++trial) {
    Bytes data(static_cast<std::size_t>(rows * row_bytes), false);
    Bytes param(static_cast<std::size_t>(rows * 2 * size), false);
    for (std::int64_t i = 0; i < rows * row_bytes; ++i) data.data()[i] = static_cast<char>(random.bits());
    for (int i = 0; i < rows * 2; ++i) {
      // Usual parameters, far apart ones, any bits (NaN, infinity, negative and subnormal scales), the largest numbers.
      if (trial % 4 == 0) {
        fill_row(t, 1, 6, random, param.data() + i * size);
      } else if (trial % 4 == 3) {
        const float x =
            std::ldexp(1.0F + std::abs(random.normal()) / 8, (t == DType::f16 ? 15 : 127) - random.below(12));
        put(t, param.data() + i * size, random.below(2) == 0 ? x : -x);
      } else {
        put(t, param.data() + i * size, random.normal() * std::ldexp(1.0F, random.below(trial % 4 == 1 ? 8 : 40) - 20));
      }
    }
    for (const int gap : {0, 32, 64}) {
      ReadRows r;
      r.data = data.data();
      r.data_stride = row_bytes;
      r.param = param.data();
      r.param_stride = 2 * size;
      r.rows = rows;
      r.dim = dim;
      r.y_stride = dim * size + gap;
      r.stream = gap != 0;
      const auto read = [&](const ReadKernels& kernels, Bytes& y) {
        r.y = y.data();
        kernels.rows(t, kv)(r);
        kernels.finish();
      };
      Bytes y(static_cast<std::size_t>(rows * r.y_stride), gap != 32);
      read(kScalarReadKernels, y);
      for (const Target target : simd_targets()) {
        Bytes simd_y(static_cast<std::size_t>(rows * r.y_stride), gap != 32);
        read(read_kernels(target), simd_y);
        ASSERT_TRUE(y == simd_y) << "target " << static_cast<int>(target) << " trial " << trial;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Rows, testing::ValuesIn(row_cases()), name_of);

TEST(Rotation, AlikeOnEveryTarget) {
  Random random(1);
  for (const RopePairs order : {RopePairs::interleaved, RopePairs::half_split}) {
    const int unit = order == RopePairs::interleaved ? 4 : 8;
    for (int pairs = unit; pairs <= core::kMaxRopePairs; pairs += unit) {
      for (int trial = 0; trial < 50; ++trial) {
        std::uint32_t phase[core::kMaxRopePairs];
        for (auto& p : phase)
          p = trial < 40 ? random.bits() : (random.bits() & 0xe0000000u) + static_cast<std::uint32_t>(trial - 45);
        RotationRow expected;
        RotationRow actual;
        std::memset(&expected, kPoison, sizeof(expected));
        kScalarWriteKernels.rotation(phase, pairs, order, 1.25F, expected);
        for (const Target target : simd_targets()) {
          std::memset(&actual, kPoison, sizeof(actual));
          write_kernels(target).rotation(phase, pairs, order, 1.25F, actual);
          ASSERT_EQ(std::memcmp(&expected, &actual, sizeof(expected)), 0) << pairs;
        }
      }
    }
  }
}

}  // namespace
}  // namespace pagedkv::cpu
