// Recorded sines and cosines of the original, which uses the GPU's fast functions: ours are closer to the exact ones.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "oracle/rope.h"
#include "pagedkv/core/rope.h"
#include "pagedkv/ops.h"
#include "support/npy.h"

namespace golden {
namespace {

TEST(GoldenRope, CloserToTheExactAngles) {
  // [new tokens of sequences with q_len 1 and 65 after a history of 63 and 4][pair][cos, sin]
  const support::NpyArray recorded = support::read_npy(PAGEDKV_GOLDEN_DATA "/cs_default_D64_n66_h67.npy");
  ASSERT_EQ(recorded.shape, (std::vector<std::int64_t>{66, 32, 2}));
  pagedkv::RopeParams params;
  params.type = pagedkv::RopeType::standard;
  params.dim = 64;
  const pagedkv::core::RopeTable table = pagedkv::make_rope_table(params, 64);
  oracle::Rope rope;
  rope.kind = oracle::RopeKind::standard;
  rope.dim = 64;
  double our_error = 0;
  double their_error = 0;
  for (int token = 0; token < 66; ++token) {
    const int position = token == 0 ? 63 : 4 + token - 1;
    for (int i = 0; i < 32; ++i) {
      const long double angle = position * oracle::frequency(rope, i);
      const auto cosine = static_cast<double>(std::cos(angle));
      const auto sine = static_cast<double>(std::sin(angle));
      const float* theirs = recorded.as<float>() + (token * 32 + i) * 2;
      const pagedkv::core::SinCos ours = pagedkv::core::rope_sincos(table, i, 0, 0, position);
      our_error = std::max({our_error, std::fabs(ours.cos - cosine), std::fabs(ours.sin - sine)});
      their_error = std::max({their_error, std::fabs(theirs[0] - cosine), std::fabs(theirs[1] - sine)});
    }
  }
  EXPECT_LT(their_error, 1e-4);  // they are the same angles
  EXPECT_LT(our_error, 1.2e-7);
  EXPECT_LT(our_error, their_error);
}

}  // namespace
}  // namespace golden
