#pragma once
// Online softmax of a warp's tile. Scores lie as products leave them: row lane / 4 (+ 8) of 16 tokens, queries
// 2 (lane % 4) + {0, 1} of each column tile.

#include <cstdint>

#include "cuda/decode/query.cuh"
#include "cuda/ptx/arithmetic.cuh"
#include "cuda/ptx/mma.cuh"

namespace pagedkv::cuda::impl::decode {

/// Stands for minus infinity where a difference is taken.
inline constexpr float kLow = -1e30F;
/// p stays below 2^kSlack times its nominal 1 before the reference maximum is raised (log2 units).
inline constexpr float kSlack = 4.0F;
/// f16 p of unquantised values is 2^kLift times its nominal value, so that small p keep their bits.
inline constexpr float kLift = 10.0F;

using ptx::exp2_approx;

/// Largest over the lanes that hold the same queries. Packed: lanes whose lane % 4 differs by 2 do.
template <bool Packed>
__device__ __forceinline__ float max_over_rows(float x) {
  if constexpr (Packed) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 4));
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 8));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 16));
}
/// Sum over them, `x` being a lane's own sums. The same bits packed or not.
template <bool Packed, int Sums>
__device__ __forceinline__ float sum_over_rows(const float (&sums)[Sums]) {
  float x = sums[0];
  if constexpr (Sums > 1) x += sums[1];
  if constexpr (Packed) x += __shfl_xor_sync(0xffffffffu, x, 2);
  x += __shfl_xor_sync(0xffffffffu, x, 4);
  x += __shfl_xor_sync(0xffffffffu, x, 8);
  return x + __shfl_xor_sync(0xffffffffu, x, 16);
}

/// What a warp has summed of an item.
/// @tparam Sums 2: sums of p are kept apart for the first and the second half of each tile's tokens, so that they come
///              to the same bits as where two lanes have them
template <int N, int D, int Sums>
struct State {
  float o[D / 16][N][4];   ///< sums of p times stored values, in steps of Convert
  float high[N][2];        ///< reference maximum, log2 units
  float sum[N][2][Sums];   ///< this lane's part of the sum of p
  float zero[N][2][Sums];  ///< this lane's part of the sum of p * zero (quantised values)
  float unit;              ///< power of two that p carries besides its scale (quantised values)

  __device__ void reset() {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int m = 0; m < D / 16; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[m][n][i] = 0.0F;
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        high[n][e] = kLow;
#pragma unroll
        for (int i = 0; i < Sums; ++i) sum[n][e][i] = zero[n][e][i] = 0.0F;
      }
    }
    unit = 0x1p120F;
  }
};

/// Which keys a row sees: local indices [from, to), and of the sequence's new tokens those whose bit is set.
struct VisibleRow {
  int from;
  int to;
  std::uint32_t tree;
};
inline constexpr std::uint32_t kAllOfTree = 0xffffffffu;

/// The rows of a warp's queries, in shared memory: only tiles that some row does not see in full ask.
template <int N>
struct Visible {
  VisibleRow row[8 * N];
  int history;           ///< first local index of a new token
  int history_position;  ///< its position

  /// Of the keys key + 8 j, j < Count, those that a row sees: bit j.
  template <int Count>
  __device__ std::uint32_t seen(const core::Ownership& own, const VisibleRow& r, int key) const {
    const int from = min(max((r.from - key + 7) >> 3, 0), Count);
    const int to = min(max((r.to - key + 7) >> 3, 0), Count);
    std::uint32_t bits = ((1u << to) - 1u) & ~((1u << from) - 1u);
    if (r.tree != kAllOfTree) {
#pragma unroll 1
      for (int j = from; j < to; ++j) {
        const int k = key + 8 * j;
        if (k >= history && (r.tree >> ((own.position(k) - history_position) & 31) & 1u) == 0u) bits &= ~(1u << j);
      }
    }
    return bits;
  }
};

/// Of a lane's two rows.
__device__ __forceinline__ float of_row(float2 x, int e) {
  return e == 0 ? x.x : x.y;
}

/// With 4 rows (policy.h) the columns of queries 4 to 7 repeat those of 0 to 3. The lanes that have them take the
/// scores of the second half of the tile's tokens from them, the others those of the first half.
template <class T, KvType K, KvType V, int DV, int Tokens, int Rows, int Sums>
struct Softmax {
  static constexpr int N = row_tiles(Rows);
  static constexpr bool kPacked = Rows < 8;
  static constexpr bool kBf16P = dtype_of<T> == DType::bf16 && V == KvType::same;
  static constexpr float kPLift = V == KvType::same && !kBf16P ? kLift : 0.0F;
  static constexpr int kTiles = Tokens / 16;
  static constexpr int kM = kPacked ? kTiles / 2 : kTiles;  ///< of these that a lane has scores of
  static constexpr int kScores = kM * N * 4;
  static_assert(kScores <= 32, "a bit for each");
  static_assert(!kPacked || kTiles % 2 == 0);
  static_assert(!kPacked || Sums == 1);
  using States = State<N, DV, Sums>;

  /// Turns products into p fragments and updates the state. `k_params` and `v_params` are the tile's in shared memory.
  /// `t` is the tile's first token. `masked`: there may be keys in it that some row does not see; `first` is the first
  /// one that any of the sequence's rows does.
  __device__ static void run(States& st, const RowFactors<N>& q, const Visible<N>& visible, const core::Ownership& own,
                             float softcap, const float (&products)[kTiles][N][4], std::uint32_t (&p)[kTiles][N][2],
                             const std::uint32_t* k_params, const std::uint32_t* v_params, int t, bool masked,
                             int first) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bool second_half = kPacked && (lane & 2) != 0;
    const int g = lane / 4 + (second_half ? kM * 16 : 0);  // the lane's first token
    float s[kM][N][4];
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const int m = i / (4 * N);
      const int n = i / 4 % N;
      s[m][n][i % 4] = products[m][n][i % 4];
      if constexpr (kPacked) s[m][n][i % 4] = second_half ? products[m + kM][n][i % 4] : s[m][n][i % 4];
    }
    if constexpr (K != KvType::same) {
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float2 sz = unpack<T>(k_params[m * 16 + h * 8 + g]);
#pragma unroll
          for (int n = 0; n < N; ++n) {
#pragma unroll
            for (int e = 0; e < 2; ++e) s[m][n][2 * h + e] = fmaf(s[m][n][2 * h + e], sz.x, sz.y * of_row(q.sum[n], e));
          }
        }
      }
    }
    std::uint32_t v_words[2 * kM];
    if constexpr (V != KvType::same) {
#pragma unroll
      for (int i = 0; i < 2 * kM; ++i) v_words[i] = v_params[i * 8 + g];
    }
    if (softcap > 0.0F || masked) {
      if (softcap > 0.0F) {
        float x[kScores];
#pragma unroll
        for (int i = 0; i < kScores; ++i) x[i] = s[i / (4 * N)][i / 4 % N][i % 4] * of_row(q.scale[i / 4 % N], i % 2);
        if constexpr (kCalls) {
          call_cap_scores(x, softcap);
        } else {
          cap_scores(x, softcap);
        }
#pragma unroll
        for (int i = 0; i < kScores; ++i) s[i / (4 * N)][i / 4 % N][i % 4] = x[i];
      }
      if (masked) {
        std::uint32_t seen = 0;
        if constexpr (kCalls) {
          seen = call_seen_by_rows(visible, own, t + g);
        } else {
          seen = seen_by_rows(visible, own, t + g);
        }
#pragma unroll
        for (int i = 0; i < kScores; ++i) {
          const int row = i / 4 % N * 2 + i % 2;
          const int key = i / (4 * N) * 2 + i % 4 / 2;
          float& x = s[i / (4 * N)][i / 4 % N][i % 4];
          x = seen >> (row * 2 * kM + key) & 1u ? x : -INFINITY;
        }
        // Parameters in front of the first key may be anything (those that share 16 bytes with its). p is 0 there, and
        // stays so with a scale and a zero of 0.
        if constexpr (V != KvType::same) {
#pragma unroll
          for (int i = 0; i < 2 * kM; ++i) v_words[i] = t + i * 8 + g < first ? 0u : v_words[i];
          // A value that is not finite must not reach rows that do not see it, p being 0 there.
          std::uint32_t not_finite = 0;
#pragma unroll
          for (int i = 0; i < 2 * kM; ++i) {
            if (is_finite(v_words[i])) continue;
            not_finite |= 1u << i;
            v_words[i] = 0;
          }
#pragma unroll
          for (int row = 0; row < 2 * N; ++row) {
            if ((seen >> row * 2 * kM & not_finite) != 0) st.zero[row / 2][row % 2][0] = NAN;
          }
        }
      }
    }

    float vs[2 * kM];
    float vz[2 * kM];
    if constexpr (V != KvType::same) {
#pragma unroll
      for (int i = 0; i < 2 * kM; ++i) {
        const float2 sz = unpack<T>(v_words[i]);
        vs[i] = sz.x;
        vz[i] = sz.y;
      }
    }

    // The reference maximum follows lazily: it is raised only when p would leave its range.
    float scale[N][2];
    float top[N][2];
    bool raise = false;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        scale[n][e] = softcap > 0.0F ? 1.0F : of_row(q.scale[n], e);
        float x = s[0][n][e];
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          x = fmaxf(x, s[m][n][e]);
          x = fmaxf(x, s[m][n][2 + e]);
        }
        top[n][e] = x * scale[n][e];
        raise |= top[n][e] > st.high[n][e] + kSlack;
      }
    }
    float largest = 0.0F;
    if constexpr (V != KvType::same) {
#pragma unroll
      for (int i = 0; i < 2 * kM; ++i) largest = fmaxf(largest, vs[i]);
      raise |= largest * st.unit > 2048.0F;
    }
    if (__any_sync(0xffffffffu, raise)) raise_reference(st, top, largest);

#pragma unroll
    for (int n = 0; n < N; ++n) {
      const float high[2] = {st.high[n][0] - kPLift, st.high[n][1] - kPLift};
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int e = i % 2;
          float x = exp2_approx(fmaf(s[m][n][i], scale[n][e], -high[e]));
          const int half = Sums * m / kM;
          st.sum[n][e][half] += x;
          if constexpr (V != KvType::same) {
            const int row = 2 * m + i / 2;
            st.zero[n][e][half] = fmaf(x, vz[row], st.zero[n][e][half]);
            x *= vs[row] * st.unit;
          }
          s[m][n][i] = x;
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          p[m][n][h] = ptx::movmatrix(pack<kBf16P>(s[m][n][2 * h], s[m][n][2 * h + 1]));
          // What columns 4 to 7 then hold nobody uses.
          if constexpr (kPacked) p[m + kM][n][h] = __shfl_xor_sync(0xffffffffu, p[m][n][h], 16);
        }
      }
    }
  }

 private:
  /// Whether both parameters in a word are.
  __device__ static __forceinline__ bool is_finite(std::uint32_t word) {
    constexpr std::uint32_t kExponent = dtype_of<T> == DType::bf16 ? 0x7f80u : 0x7c00u;
    return (word & kExponent) != kExponent && (word >> 16 & kExponent) != kExponent;
  }

  /// softcap tanh(x / softcap), x and softcap in log2 units: tanh x = 1 - 2 / (e^2x + 1).
  __device__ static __forceinline__ void cap_scores(float (&scores)[kScores], float softcap) {
    const float factor = 2.0F * 1.4426950408889634F / softcap;
#pragma unroll
    for (float& x : scores) {
      x = softcap - __fdividef(2.0F * softcap, exp2_approx(fminf(x * factor, 126.0F)) + 1.0F);
    }
  }

  /// Which keys the lane's rows see: bit 2 kM r + j is row r's (n, e), key `key` + 8 j.
  __device__ static __forceinline__ std::uint32_t seen_by_rows(const Visible<N>& visible, const core::Ownership& own,
                                                               int key) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    std::uint32_t all = 0;
#pragma unroll 1
    for (int r = 2 * N - 1; r >= 0; --r) {
      const VisibleRow& row = visible.row[r / 2 * 8 + lane % 4 * 2 + r % 2];
      all = all << 2 * kM | visible.template seen<2 * kM>(own, row, key);
    }
    return all;
  }

  /// What most tiles do without is called, so that less code lies between what they execute and it is fetched sooner.
  /// Only with two tiles of rows: the shorter loops lose by that (decision 020).
  static constexpr bool kCalls = N > 1 && (K != KvType::same || V != KvType::same);
  __device__ static __noinline__ void call_cap_scores(float (&scores)[kScores], float softcap) {
    cap_scores(scores, softcap);
  }
  __device__ static __noinline__ std::uint32_t call_seen_by_rows(const Visible<N>& visible, const core::Ownership& own,
                                                                 int key) {
    return seen_by_rows(visible, own, key);
  }

  /// Raises the reference of those queries that need it, and the unit if a value scale needs it. Each query's decision
  /// is its own, so that its bits do not depend on its neighbours in the tile.
  __device__ static void raise_reference(States& st, const float (&top)[N][2], float largest) {
    float unit_factor = 1.0F;
    if constexpr (V != KvType::same) {
      const float all = max_over_rows<kPacked>(largest);
      if (all * st.unit > 2048.0F) {
        // 2^(9 - floor(log2 all)), at most 2^120
        const int exponent = min(max(127 + 9 - (exponent_of(all) - 127), 1), 127 + 120);
        // A division by the first unit, 2^120, takes the way for rare exponents, which is not in the instruction cache,
        // in every item. Without it kernels of larger rows take 12 registers more, and then the kernels behind them do
        // not fit beside them.
        if constexpr (DV <= 64) {
          unit_factor = power_of_two(127 + exponent - exponent_of(st.unit));
        } else {
          unit_factor = power_of_two(exponent) / st.unit;
        }
        st.unit = power_of_two(exponent);
      }
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float x = max_over_rows<kPacked>(top[n][e]);
        const float high = x > st.high[n][e] + kSlack ? x : st.high[n][e];
        const float factor = exp2_approx(st.high[n][e] - high);
        st.high[n][e] = high;
#pragma unroll
        for (int i = 0; i < Sums; ++i) {
          st.sum[n][e][i] *= factor;
          st.zero[n][e][i] *= factor;
        }
        const float f = factor * unit_factor;
#pragma unroll
        for (int m = 0; m < DV / 16; ++m) {
          st.o[m][n][e] *= f;
          st.o[m][n][2 + e] *= f;
        }
      }
    }
  }
};

}  // namespace pagedkv::cuda::impl::decode
