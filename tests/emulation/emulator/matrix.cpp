#include "emulator/matrix.h"

#include <cmath>
#include <cstring>

#include "pagedkv/core/half.h"

namespace emulation {
namespace {

// Element layouts are those of the PTX ISA, "Matrix Fragments for mma.m16n8k16" and "ldmatrix".

struct Mma {
  const std::uint32_t* a;
  const std::uint32_t* b;
  float c[4];
};

template <class T>
double element(std::uint32_t word, int i) {
  return static_cast<double>(pagedkv::core::to_float(T{static_cast<std::uint16_t>(word >> (16 * i))}));
}

template <class T>
void complete_mma(void* const (&operands)[32], unsigned) {
  double a[16][16];  // [row][k]
  double b[16][8];   // [k][column]
  double d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& x = *static_cast<const Mma*>(operands[lane]);
    const int g = lane / 4;
    const int t = lane % 4 * 2;
    for (int e = 0; e < 2; ++e) {
      a[g][t + e] = element<T>(x.a[0], e);
      a[g + 8][t + e] = element<T>(x.a[1], e);
      a[g][t + 8 + e] = element<T>(x.a[2], e);
      a[g + 8][t + 8 + e] = element<T>(x.a[3], e);
      b[t + e][g] = element<T>(x.b[0], e);
      b[t + 8 + e][g] = element<T>(x.b[1], e);
      d[g][t + e] = static_cast<double>(x.c[e]);
      d[g + 8][t + e] = static_cast<double>(x.c[2 + e]);
    }
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      const double factor = a[i][k];
      for (int j = 0; j < 8; ++j) d[i][j] += factor * b[k][j];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto& x = *static_cast<Mma*>(operands[lane]);
    for (int i = 0; i < 4; ++i) x.c[i] = static_cast<float>(d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
  }
}

struct Ldmatrix {
  const char* row;
  std::uint32_t r[4];
};

std::uint16_t at(void* const (&operands)[32], int matrix, int row, int column) {
  std::uint16_t x = 0;
  std::memcpy(&x, static_cast<const Ldmatrix*>(operands[8 * matrix + row])->row + 2 * column, 2);
  return x;
}

template <bool Trans>
void complete_ldmatrix(void* const (&operands)[32], unsigned) {
  for (int lane = 0; lane < 32; ++lane) {
    const int i = lane / 4;
    const int j = lane % 4 * 2;
    for (int m = 0; m < 4; ++m) {
      const std::uint32_t low = Trans ? at(operands, m, j, i) : at(operands, m, i, j);
      const std::uint32_t high = Trans ? at(operands, m, j + 1, i) : at(operands, m, i, j + 1);
      static_cast<Ldmatrix*>(operands[lane])->r[m] = high << 16 | low;
    }
  }
}

void complete_movmatrix(void* const (&operands)[32], unsigned) {
  std::uint32_t in[32];
  for (int lane = 0; lane < 32; ++lane) in[lane] = *static_cast<const std::uint32_t*>(operands[lane]);
  // Row i, column j is half j % 2 of lane 4 i + j / 2.
  const auto element_of = [&](int i, int j) { return in[4 * i + j / 2] >> (16 * (j % 2)) & 0xffffu; };
  for (int lane = 0; lane < 32; ++lane) {
    const int row = lane / 4;
    const int column = lane % 4 * 2;
    *static_cast<std::uint32_t*>(operands[lane]) = element_of(column + 1, row) << 16 | element_of(column, row);
  }
}

constexpr WarpOperation kMovmatrix{"movmatrix", true, complete_movmatrix};
constexpr unsigned kAllLanes = 0xffffffffu;

}  // namespace

const WarpOperation kMmaF16{"mma.f16", true, complete_mma<pagedkv::half_t>};
const WarpOperation kMmaBf16{"mma.bf16", true, complete_mma<pagedkv::bfloat16_t>};
const WarpOperation kLdmatrix{"ldmatrix", true, complete_ldmatrix<false>};
const WarpOperation kLdmatrixTrans{"ldmatrix.trans", true, complete_ldmatrix<true>};

void mma(const WarpOperation& type, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
         const float (&c)[4], std::source_location where) {
  Mma operand{a, b, {c[0], c[1], c[2], c[3]}};
  meet(type, kAllLanes, &operand, where);
  std::memcpy(d, operand.c, sizeof(operand.c));
}

void ldmatrix(const WarpOperation& kind, std::uint32_t (&r)[4], std::uint32_t shared_address,
              std::source_location where) {
  Ldmatrix operand{shared_pointer(shared_address, 16, where), {}};
  meet(kind, kAllLanes, &operand, where);
  std::memcpy(r, operand.r, sizeof(operand.r));
}

std::uint32_t movmatrix(std::uint32_t x, std::source_location where) {
  meet(kMovmatrix, kAllLanes, &x, where);
  return x;
}

}  // namespace emulation
