#include "golden/row_compare.h"

#include <algorithm>
#include <cmath>

#include "support/convert.h"

namespace golden {

std::string Row::text() const {
  return std::string(value ? "V" : "K") + " of sequence " + std::to_string(sequence) + ", position " +
         std::to_string(position) + ", head " + std::to_string(head);
}

void for_each_row(const CacheCase& c, const std::function<void(const Row&)>& f) {
  const pagedkv::BlockLayout& l = c.layout;
  std::int64_t first_history = 0;
  std::int64_t first_new = 0;
  for (std::int32_t b = 0; b < c.batch(); ++b) {
    const auto i = static_cast<std::size_t>(b);
    const std::int32_t history = c.history[i];
    for (std::int32_t t = 0; t < history + c.q_len[i]; ++t) {
      const std::int32_t local = t / c.cp.size;
      if (t % c.cp.size != c.cp.rank) continue;
      if (!c.readonly_blocks.empty() && local / l.block_len < c.readonly_blocks[i]) continue;
      Row row;
      row.sequence = b;
      row.position = t;
      row.is_new = t >= history;
      const std::int64_t token = row.is_new ? first_new + t - history : first_history + t;
      const std::int64_t block = std::int64_t{c.cu_block[i] + local / l.block_len} * l.layer_bytes;
      const std::int32_t in_block = local % l.block_len;
      for (row.head = 0; row.head < l.kv_heads; ++row.head) {
        for (const bool value : {false, true}) {
          row.value = value;
          row.rotated = row.is_new && !value && c.rope.type != pagedkv::RopeType::none;
          row.input_row = token * 2 * l.kv_heads + (value ? l.kv_heads : 0) + row.head;
          row.data = block + (value ? l.v_data(0, row.head, in_block) : l.k_data(0, row.head, in_block));
          row.param = block + (value ? l.v_param(0, row.head, in_block) : l.k_param(0, row.head, in_block));
          row.data_bytes = l.k_row_bytes;
          row.param_bytes = l.k_param_bytes;
          f(row);
        }
      }
    }
    first_history += history;
    first_new += c.q_len[i];
  }
}

oracle::Type type_of(const CacheCase& c) {
  return support::to_oracle(c.layout.dtype);
}

Truth::Truth(const CacheCase& c)
    : case_(c),
      type_(type_of(c)),
      history_(c.input("hist")),
      new_(c.input("new")),
      bias_{c.input("kbias"), c.input("vbias")} {
  if (c.rope.type == pagedkv::RopeType::none) return;
  rope_.kind = oracle::RopeKind::standard;
  rope_.dim = c.rope.dim;
  rope_.base = c.rope.base;
}

std::vector<double> Truth::unrotated(const Row& r) const {
  const auto dim = static_cast<std::size_t>(case_.layout.head_dim);
  const char* x = (r.is_new ? new_ : history_).bytes.data() + static_cast<std::size_t>(r.input_row) * dim * 2;
  const char* bias = r.is_new && case_.has_bias
                         ? bias_[r.value ? 1 : 0].bytes.data() + static_cast<std::size_t>(r.head) * dim * 2
                         : nullptr;
  std::vector<double> row(dim);
  for (std::size_t d = 0; d < dim; ++d) {
    row[d] = oracle::load(type_, x + d * 2);
    if (bias != nullptr) row[d] += oracle::load(type_, bias + d * 2);
  }
  return row;
}

std::vector<double> Truth::row(const Row& r) const {
  std::vector<double> row = unrotated(r);
  if (r.rotated) oracle::rotate(rope_, {r.position, r.position, r.position}, row);
  return row;
}

double Truth::largest(const Row& r) const {
  double most = 0;
  for (const double x : unrotated(r)) most = std::max(most, std::fabs(x));
  return most;
}

bool Truth::ordinary(const Row& r) const {
  const std::vector<double> x = row(r);
  if (!std::all_of(x.begin(), x.end(), [](double v) { return std::isfinite(v); })) return false;
  const auto [mn, mx] = std::minmax_element(x.begin(), x.end());
  const double range = *mx - *mn;
  const double step = range / (case_.layout.format.k == pagedkv::KvType::int8 ? 255 : 15);
  if (type_ == oracle::Type::f16) return range < 65504 && step > 6.2e-5;
  return range < 1e38 && step > 1e-37;
}

oracle::QuantRow stored_row(const CacheCase& c, const Row& row, const std::vector<char>& layer_bytes) {
  return oracle::read_row(type_of(c), c.layout.format.k == pagedkv::KvType::int8 ? 8 : 4,
                          static_cast<std::size_t>(c.layout.head_dim), layer_bytes.data() + row.data,
                          layer_bytes.data() + row.param);
}

double ErrorSum::rms() const {
  return std::sqrt(squares / static_cast<double>(count));
}

void ErrorSum::add(double error) {
  squares += error * error;
  largest = std::max(largest, std::fabs(error));
  ++count;
}

ErrorTable compare_errors(const CacheCase& c, const std::vector<char>& ours, const std::vector<char>& theirs) {
  const Truth truth(c);
  ErrorTable table;
  const double codes = c.layout.format.k == pagedkv::KvType::int8 ? 255 : 15;
  for_each_row(c, [&](const Row& row) {
    if (!truth.ordinary(row)) return;
    ++table.rows;
    const std::vector<double> x = truth.row(row);
    const auto [mn, mx] = std::minmax_element(x.begin(), x.end());
    const double step = (*mx - *mn) / codes;
    const oracle::QuantRow a = stored_row(c, row, ours);
    const oracle::QuantRow b = stored_row(c, row, theirs);
    for (std::size_t d = 0; d < x.size(); ++d) {
      table.ours.add((a.codes[d] * a.scale + a.zero - x[d]) / step);
      table.theirs.add((b.codes[d] * b.scale + b.zero - x[d]) / step);
      const double ideal = std::nearbyint((x[d] - *mn) / step) * step + *mn;
      table.ideal.add((ideal - x[d]) / step);
    }
  });
  return table;
}

}  // namespace golden
