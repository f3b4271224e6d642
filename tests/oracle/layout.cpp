#include "oracle/layout.h"

namespace oracle {
namespace {

std::size_t slot(const Shape& s, int layer, int head, Side side, bool params) {
  const int row = (layer * s.heads + head) * 2 + (side == Side::key || s.shared ? 0 : 1);
  return static_cast<std::size_t>(row) * 2 + (params ? 1 : 0);
}

std::int64_t bytes_per_token(const Shape& s, Side side, bool params) {
  if (!params) return row_bytes(s, side);
  return s.stored(side) == Stored::same ? 0 : 2 * bytes_of(s.type);
}

}  // namespace

int code_bits(Stored s) {
  return s == Stored::int8 ? 8 : s == Stored::int4 ? 4 : 0;
}

std::int64_t row_bytes(const Shape& s, Side side) {
  switch (s.stored(side)) {
    case Stored::int8:
      return s.head_dim;
    case Stored::int4:
      return s.head_dim / 2;
    case Stored::same:
      break;
  }
  return std::int64_t{s.head_dim} * bytes_of(s.type);
}

Layout::Layout(const Shape& shape) : shape_(shape) {
  first_.resize(static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.heads) * 4);
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (const bool params : {false, true}) {
      for (int head = 0; head < shape.heads; ++head) {
        for (const Side side : {Side::key, Side::value}) {
          if (shape.shared && side == Side::value) continue;
          const std::int64_t bytes = shape.block_len * bytes_per_token(shape, side, params);
          first_[slot(shape, layer, head, side, params)] = block_bytes_;
          if (bytes > 0) regions_.push_back({layer, head, side, params, block_bytes_, bytes});
          block_bytes_ += bytes;
        }
      }
    }
  }
}

std::int64_t Layout::offset(int layer, int head, Side side, int token, bool params) const {
  return first_[slot(shape_, layer, head, side, params)] + token * bytes_per_token(shape_, side, params);
}

std::int64_t Layout::data(int layer, int head, Side side, int token) const {
  return offset(layer, head, side, token, false);
}

std::int64_t Layout::params(int layer, int head, Side side, int token) const {
  return offset(layer, head, side, token, true);
}

}  // namespace oracle
