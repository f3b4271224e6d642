#pragma once
// Where the bytes of a block lie, found by laying out one region behind the other.

#include <cstdint>
#include <vector>

#include "oracle/number.h"

namespace oracle {

/// Stored type of keys or values; `same` is the compute type.
enum class Stored { same, int8, int4 };

enum class Side { key, value };

struct Shape {
  Type type = Type::f16;
  Stored key = Stored::same;
  Stored value = Stored::same;
  bool shared = false;  // one row per token for key and value
  int layers = 1;
  int heads = 1;
  int head_dim = 128;
  int block_len = 64;

  Stored stored(Side side) const { return side == Side::key ? key : value; }
};

/// Bytes of a row of head_dim elements; bits of a code, 0 for `same`.
std::int64_t row_bytes(const Shape& s, Side side);
int code_bits(Stored s);

/// Data or parameters of all tokens of one (layer, head, side).
struct Region {
  int layer;
  int head;
  Side side;  // key if shared
  bool params;
  std::int64_t first;
  std::int64_t bytes;
};

class Layout {
 public:
  explicit Layout(const Shape& shape);

  const Shape& shape() const { return shape_; }
  std::int64_t block_bytes() const { return block_bytes_; }
  /// In the order of their addresses; regions without bytes are left out.
  const std::vector<Region>& regions() const { return regions_; }

  /// Offset from the start of the block of a token's data, or of its parameters {scale, zero}.
  std::int64_t data(int layer, int head, Side side, int token) const;
  std::int64_t params(int layer, int head, Side side, int token) const;

 private:
  std::int64_t offset(int layer, int head, Side side, int token, bool params) const;

  Shape shape_;
  std::vector<Region> regions_;
  std::vector<std::int64_t> first_;  // [layer][head][side][data, params]
  std::int64_t block_bytes_ = 0;
};

}  // namespace oracle
