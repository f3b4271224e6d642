#include "support/cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <sstream>

#include "oracle/context_parallel.h"
#include "support/convert.h"

namespace support {
namespace {

pagedkv::CacheConfig with_block_len(pagedkv::CacheConfig c, int block_len) {
  c.block_len = block_len;
  return c;
}

std::size_t at(int i) {
  return static_cast<std::size_t>(i);
}

constexpr oracle::Side kSides[] = {oracle::Side::key, oracle::Side::value};

std::string place(int sequence, int head, oracle::Side side, int local) {
  std::ostringstream s;
  s << (side == oracle::Side::key ? "key" : "value") << " of sequence " << sequence << ", head " << head
    << ", local token " << local << ": ";
  return s.str();
}

bool same_value(double a, double b) {
  return a == b || (std::isnan(a) && std::isnan(b));
}

}  // namespace

Arrangement Arrangement::random(const std::vector<int>& block_lens, Random& random) {
  Arrangement a;
  a.block_len = block_lens[at(random.integer(0, static_cast<int>(block_lens.size()) - 1))];
  a.rows = kRowOrders[random.integer(0, 3)];
  a.pointers = random.chance(2);
  a.ragged = random.chance(2);
  a.spare_blocks = random.chance(2);
  a.first_row = random.chance(2) ? 0 : random.integer(1, 9);
  a.seed = random.bits();
  return a;
}

/// A RopeTable for the tokens of some chunks, with the arrays that it points to.
struct Cache::RopeArrays {
  std::vector<float> base;
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> offsets;
  std::vector<std::int32_t> lengths;
  std::vector<std::int32_t> delta;
  pagedkv::core::RopeTable table;

  RopeArrays(const Content& c, const std::vector<Chunk>& chunks) {
    if (c.rope.type == pagedkv::RopeType::none) return;
    for (const auto& p : c.mrope_positions) ids.insert(ids.end(), p.begin(), p.end());
    ids.push_back(-1);  // so that data() is never null
    for (const Chunk& chunk : chunks) {
      if (!c.dynamic_base.empty()) base.push_back(c.dynamic_base[at(chunk.sequence)]);
      if (!c.mrope_length.empty()) {
        lengths.push_back(std::max(0, c.mrope_length[at(chunk.sequence)] - chunk.from));
        offsets.push_back(chunk.sequence * c.longest() + chunk.from);
      }
      if (!c.mrope_delta.empty()) delta.push_back(c.mrope_delta[at(chunk.sequence)]);
    }
    const auto data = [](const auto& v) { return v.empty() ? nullptr : v.data(); };
    pagedkv::RopeParams params = c.rope;
    params.dynamic_base = data(base);
    params.mrope_position_ids = data(ids);
    params.mrope_offsets = data(offsets);
    params.mrope_length = data(lengths);
    params.mrope_delta = data(delta);
    table = make_rope_table(params, c.config.head_dim);
  }
  RopeArrays(const RopeArrays&) = delete;
  RopeArrays& operator=(const RopeArrays&) = delete;
};

Cache::Cache(const Content& content, const Arrangement& arrangement)
    : content_(content),
      arrangement_(arrangement),
      layout_(make_layout(with_block_len(content.config, arrangement.block_len))),
      oracle_(to_oracle(with_block_len(content.config, arrangement.block_len))),
      slab_(0) {
  int needed = 0;
  for (int b = 0; b < content.batch(); ++b) {
    const int local = static_cast<int>(positions(b).size());
    blocks_.emplace_back(at((local + arrangement.block_len - 1) / arrangement.block_len));
    needed += static_cast<int>(blocks_.back().size());
    written_.emplace_back(at(content.lengths[at(b)]));
  }
  slab_blocks_ = needed + (arrangement.spare_blocks ? 3 : 0);
  std::vector<int> order(at(slab_blocks_));
  std::iota(order.begin(), order.end(), 0);
  Random random(arrangement.seed);
  random.shuffle(order);
  for (auto& row : blocks_) {
    for (int& block : row) {
      block = order.back();
      order.pop_back();
    }
  }
  slab_blocks_ = std::max(slab_blocks_, 1);
  slab_ = Poisoned(at(slab_blocks_) * static_cast<std::size_t>(layout_.block_bytes));
}

std::vector<int> Cache::positions(int sequence) const {
  return oracle::owned_positions(content_.cp.rank, content_.cp.size, content_.cp.interleave,
                                 content_.lengths[at(sequence)]);
}

pagedkv::BlockTable Cache::table(const std::vector<int>& sequences) {
  // Entries that no token lies in are invalid, so that looking at one shows.
  constexpr std::int32_t kNoBlock = -1;
  const std::size_t spare = arrangement_.spare_blocks ? 2 : 0;
  std::size_t longest = 0;
  for (const int s : sequences) longest = std::max(longest, blocks_[at(s)].size());

  cu_blocks_.clear();
  indices_.assign(arrangement_.ragged ? spare : 0, kNoBlock);
  for (const int s : sequences) {
    const auto& row = blocks_[at(s)];
    cu_blocks_.push_back(static_cast<std::int32_t>(indices_.size()));
    indices_.insert(indices_.end(), row.begin(), row.end());
    indices_.insert(indices_.end(), spare + (arrangement_.ragged ? 0 : longest - row.size()), kNoBlock);
  }
  cu_blocks_.push_back(static_cast<std::int32_t>(indices_.size()));
  indices_.push_back(kNoBlock);  // so that data() is never null
  pointers_.clear();
  for (const std::int32_t i : indices_) {
    pointers_.push_back(i < 0 ? nullptr : slab_.data() + i * layout_.block_bytes);
  }
  pagedkv::BlockTable t;
  if (arrangement_.pointers) {
    t.pointers = pointers_.data();
  } else {
    t.indices = indices_.data();
    t.slab = slab_.data();
    t.slab_blocks = slab_blocks_;
  }
  if (arrangement_.ragged) {
    t.cu_blocks = cu_blocks_.data();
  } else {
    t.row_stride = static_cast<std::int32_t>(longest + spare);
  }
  return t;
}

void Cache::write(const WriteKv& write_kv, const std::vector<Chunk>& chunks) {
  const auto& c = content_;
  const int heads = c.config.kv_heads;
  const int dim = c.config.head_dim;
  std::vector<std::int32_t> cu_q{arrangement_.first_row};
  std::vector<std::int32_t> cu_k{arrangement_.first_row};
  std::vector<int> sequences;
  std::vector<std::int32_t> readonly;
  int longest = 0;
  for (const Chunk& chunk : chunks) {
    cu_q.push_back(cu_q.back() + chunk.to - chunk.from);
    cu_k.push_back(cu_k.back() + chunk.to);
    sequences.push_back(chunk.sequence);
    if (!readonly_.empty()) readonly.push_back(readonly_[at(chunk.sequence)]);
    longest = std::max(longest, chunk.to - chunk.from);
  }
  const RowLayout rows =
      row_layout(arrangement_.rows, static_cast<int>(chunks.size()), cu_q.back(), longest, heads, dim);
  const oracle::Type type = to_oracle(c.config.dtype);
  Tensor input(type, rows.elements);
  for (std::size_t b = 0; b < chunks.size(); ++b) {
    const auto sequence = at(chunks[b].sequence);
    for (int token = chunks[b].from; token < chunks[b].to; ++token) {
      for (int head = 0; head < heads; ++head) {
        const auto source = (std::int64_t{token} * heads + head) * dim;
        const int i = token - chunks[b].from;
        for (int d = 0; d < dim; ++d) {
          const auto from = static_cast<std::size_t>(source + d);
          input.set(rows.k(static_cast<int>(b), cu_q[b], i, head) + d, c.k[sequence][from]);
          if (!c.config.shared_kv) {
            input.set(rows.v(static_cast<int>(b), cu_q[b], i, head) + d, c.v[sequence][from]);
          }
        }
      }
    }
  }
  const Tensor k_bias(type, c.k_bias);
  const Tensor v_bias(type, c.v_bias);
  const RopeArrays rope(c, chunks);

  pagedkv::WriteKvArgs args;
  args.layout = layout_;
  args.layer = c.layer;
  args.table = table(sequences);
  args.batch = static_cast<std::int32_t>(chunks.size());
  args.cu_q = cu_q.data();
  args.cu_k = cu_k.data();
  args.max_total_q = cu_q.back();
  args.k = input.at(rows.k_first);
  args.v = c.config.shared_kv ? nullptr : input.at(rows.v_first);
  args.strides = rows.strides;
  args.k_bias = c.k_bias.empty() ? nullptr : k_bias.at(0);
  args.v_bias = c.v_bias.empty() ? nullptr : v_bias.at(0);
  args.rope = rope.table;
  args.cp = c.cp;
  args.readonly_blocks = readonly.empty() ? nullptr : readonly.data();
  write_kv(args);

  for (const Chunk& chunk : chunks) {
    const std::vector<int> owned = positions(chunk.sequence);
    const int first_block = readonly_.empty() ? 0 : readonly_[at(chunk.sequence)];
    for (std::size_t local = at(first_block) * at(layout_.block_len); local < owned.size(); ++local) {
      if (owned[local] >= chunk.from && owned[local] < chunk.to) written_[at(chunk.sequence)][at(owned[local])] = true;
    }
  }
}

void Cache::write_all(const WriteKv& write_kv) {
  std::vector<Chunk> chunks;
  for (int b = 0; b < content_.batch(); ++b) chunks.push_back({b, 0, content_.lengths[at(b)]});
  write(write_kv, chunks);
}

const char* Cache::block_of(int sequence, int local) const {
  return slab_.data() + blocks_[at(sequence)][at(local / layout_.block_len)] * layout_.block_bytes;
}

std::vector<unsigned char> Cache::bytes(int sequence, int head, oracle::Side side, int local) const {
  const oracle::Shape& shape = oracle_.shape();
  const int token = local % layout_.block_len;
  const char* block = block_of(sequence, local);
  const char* data = block + oracle_.data(content_.layer, head, side, token);
  std::vector<unsigned char> all(data, data + oracle::row_bytes(shape, side));
  if (shape.stored(side) != oracle::Stored::same) {
    const char* params = block + oracle_.params(content_.layer, head, side, token);
    all.insert(all.end(), params, params + 2 * oracle::bytes_of(shape.type));
  }
  return all;
}

oracle::QuantRow Cache::quantised_row(int sequence, int head, oracle::Side side, int local) const {
  const oracle::Shape& shape = oracle_.shape();
  const auto row = bytes(sequence, head, side, local);
  return oracle::read_row(shape.type, oracle::code_bits(shape.stored(side)), at(shape.head_dim), row.data(),
                          row.data() + oracle::row_bytes(shape, side));
}

std::vector<double> Cache::read_row(int sequence, int head, oracle::Side side, int local) const {
  const oracle::Shape& shape = oracle_.shape();
  std::vector<double> x(at(shape.head_dim));
  if (shape.stored(side) != oracle::Stored::same) {
    const oracle::QuantRow row = quantised_row(sequence, head, side, local);
    for (std::size_t d = 0; d < x.size(); ++d) x[d] = oracle::dequantise(shape.type, row, d);
    return x;
  }
  const auto row = bytes(sequence, head, side, local);
  for (std::size_t d = 0; d < x.size(); ++d) {
    x[d] = oracle::load(shape.type, row.data() + d * static_cast<std::size_t>(oracle::bytes_of(shape.type)));
  }
  return x;
}

std::string Cache::why_row_wrong(int sequence, int head, oracle::Side side, int local, int position) const {
  const oracle::Shape& shape = oracle_.shape();
  const ExpectedRow expected = expected_row(content_, sequence, position, head, side);
  if (shape.stored(side) != oracle::Stored::same) {
    return oracle::why_not_nearest(shape.type, oracle::code_bits(shape.stored(side)), expected.x, expected.error,
                                   quantised_row(sequence, head, side, local));
  }
  const std::vector<double> stored = read_row(sequence, head, side, local);
  for (std::size_t d = 0; d < stored.size(); ++d) {
    const double x = expected.x[d];
    const bool good = std::isfinite(oracle::round_to(shape.type, x))
                          ? std::fabs(stored[d] - x) <= oracle::half_ulp(shape.type, x) + expected.error
                          : !std::isfinite(stored[d]);
    if (!good) {
      std::ostringstream why;
      why.precision(17);
      why << "element " << d << " is " << stored[d] << " instead of " << x << " +- " << expected.error;
      return why.str();
    }
  }
  return {};
}

std::string Cache::why_wrong() const {
  for (int b = 0; b < content_.batch(); ++b) {
    const std::vector<int> owned = positions(b);
    for (int local = 0; local < static_cast<int>(owned.size()); ++local) {
      if (!written_[at(b)][at(owned[at(local)])]) continue;
      for (int head = 0; head < content_.config.kv_heads; ++head) {
        for (const oracle::Side side : kSides) {
          const std::string why = why_row_wrong(b, head, side, local, owned[at(local)]);
          if (!why.empty()) return place(b, head, side, local) + why;
        }
      }
    }
  }
  return {};
}

std::string Cache::why_touched() const {
  std::vector<bool> claimed(slab_.size());
  const auto claim = [&](std::int64_t first, std::int64_t count) { std::fill_n(claimed.begin() + first, count, true); };
  const oracle::Shape& shape = oracle_.shape();
  for (int b = 0; b < content_.batch(); ++b) {
    const std::vector<int> owned = positions(b);
    for (int local = 0; local < static_cast<int>(owned.size()); ++local) {
      if (!written_[at(b)][at(owned[at(local)])]) continue;
      const std::int64_t block = block_of(b, local) - slab_.data();
      const int token = local % layout_.block_len;
      for (int head = 0; head < shape.heads; ++head) {
        for (const oracle::Side side : kSides) {
          claim(block + oracle_.data(content_.layer, head, side, token), oracle::row_bytes(shape, side));
          if (shape.stored(side) == oracle::Stored::same) continue;
          claim(block + oracle_.params(content_.layer, head, side, token), 2 * oracle::bytes_of(shape.type));
        }
      }
    }
  }
  const std::string why = slab_.why_touched(claimed);
  return why.empty() ? why : "cache " + why;
}

std::string Cache::why_flatten_wrong(const FlattenKv& flatten_kv, RowOrder order, bool rope) {
  const auto& c = content_;
  const int heads = c.config.kv_heads;
  const int dim = c.config.head_dim;
  const oracle::Type type = to_oracle(c.config.dtype);
  std::vector<int> sequences(at(c.batch()));
  std::iota(sequences.begin(), sequences.end(), 0);
  std::vector<std::int32_t> cu_k{arrangement_.first_row};
  for (const int length : c.lengths) cu_k.push_back(cu_k.back() + length);
  const std::int64_t total = cu_k.back() - cu_k.front();
  const RowLayout rows = row_layout(order, c.batch(), total, c.longest(), heads, dim);
  Tensor output(type, rows.elements);
  std::vector<Chunk> whole;
  for (int b = 0; b < c.batch(); ++b) whole.push_back({b, 0, c.lengths[at(b)]});
  const RopeArrays rope_arrays(c, whole);

  pagedkv::FlattenKvArgs args;
  args.layout = layout_;
  args.layer = c.layer;
  args.table = table(sequences);
  args.batch = c.batch();
  args.cu_k = cu_k.data();
  args.max_total_k = total;
  // Values of shared rows may be left out.
  const bool values = !c.config.shared_kv || order == RowOrder::packed;
  args.k = output.at(rows.k_first);
  args.v = values ? output.at(rows.v_first) : nullptr;
  args.strides = rows.strides;
  if (rope) args.rope = rope_arrays.table;
  args.cp = c.cp;
  flatten_kv(args);

  std::vector<bool> claimed(output.memory().size());
  for (int b = 0; b < c.batch(); ++b) {
    const std::vector<int> owned = positions(b);
    const std::int64_t start = cu_k[at(b)] - cu_k[0];
    for (int local = 0; local < static_cast<int>(owned.size()); ++local) {
      for (int head = 0; head < heads; ++head) {
        for (const oracle::Side side : kSides) {
          const bool key = side == oracle::Side::key;
          if (!key && !values) continue;
          const std::int64_t first = key ? rows.k(b, start, local, head) : rows.v(b, start, local, head);
          const std::string why = why_flat_row_wrong(output, first, rope && key, b, head, side, local);
          if (!why.empty()) return place(b, head, side, local) + why;
          std::fill_n(claimed.begin() + first * oracle::bytes_of(type), dim * oracle::bytes_of(type), true);
        }
      }
    }
  }
  const std::string why = output.memory().why_touched(claimed);
  return why.empty() ? why : "output " + why;
}

std::string Cache::why_flat_row_wrong(const Tensor& output, std::int64_t first, bool rope, int sequence, int head,
                                      oracle::Side side, int local) const {
  std::vector<double> expected = read_row(sequence, head, side, local);
  double error = 0;
  if (rope && content_.rope.type != pagedkv::RopeType::none) {
    double largest = 0;
    for (const double x : expected) largest = std::isfinite(x) ? std::max(largest, std::fabs(x)) : largest;
    const oracle::Rope r = content_.rope_of(sequence);
    oracle::rotate(r, content_.position_of(sequence, positions(sequence)[at(local)]), expected);
    error = 1e-6 * largest * static_cast<double>(oracle::magnitude(r));
  }
  for (std::size_t d = 0; d < expected.size(); ++d) {
    const double got = output.get(first + static_cast<std::int64_t>(d));
    const double x = expected[d];
    bool good = same_value(got, x);
    if (error > 0) {
      good = std::isfinite(oracle::round_to(output.type(), x))
                 ? std::fabs(got - x) <= oracle::half_ulp(output.type(), x) + error
                 : !std::isfinite(got);
    }
    if (!good) {
      std::ostringstream why;
      why.precision(17);
      why << "element " << d << " reads as " << got << " instead of " << x << " +- " << error;
      return why.str();
    }
  }
  return {};
}

}  // namespace support
