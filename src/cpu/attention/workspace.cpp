#include "cpu/attention/workspace.h"

#include <algorithm>

namespace pagedkv::cpu::attention {
namespace {

/// Most rows of an item: more of them share the conversion of a tile, fewer leave its other arrays in the second-level
/// cache.
constexpr std::int32_t kMaxRows = 128;
constexpr std::int32_t kMaxRowsWide = 64;  ///< head_dim above 256
constexpr std::int32_t kMinRows = 16;

/// Items per thread below which work is cut further, so that threads finish at about the same time.
constexpr std::int64_t kItemsPerThread = 4;

constexpr std::size_t kAlignment = 64;

constexpr std::int32_t ceil_div(std::int32_t a, std::int32_t b) {
  return (a + b - 1) / b;
}

/// Hands out consecutive arrays; without a base it only counts.
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}

  template <class T>
  T* take(std::int64_t count) {
    bytes_ = (bytes_ + kAlignment - 1) / kAlignment * kAlignment;
    T* p = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + bytes_);
    bytes_ += static_cast<std::size_t>(count) * sizeof(T);
    return p;
  }

  std::size_t bytes() const { return (bytes_ + kAlignment - 1) / kAlignment * kAlignment; }

 private:
  char* base_;
  std::size_t bytes_ = 0;
};

/// Calls f(item) for each group of rows with all of its splits, longest first within a sequence.
template <class F>
void for_each_group(const Problem& p, const Plan& plan, F f) {
  for (std::int32_t b = 0; b < p.args->batch; ++b) {
    const std::int32_t q_len = p.q_len(b);
    if (q_len == 0) continue;
    const std::int32_t runs = ceil_div(q_len, plan.tokens);
    const std::int32_t tokens = ceil_div(q_len, runs);
    for (std::int32_t kv_head = 0; kv_head < p.args->layout.kv_heads; ++kv_head) {
      for (std::int32_t token = (q_len - 1) / tokens * tokens; token >= 0; token -= tokens) {
        const std::int32_t n = std::min(tokens, q_len - token);
        // Both ends of what a token sees grow with its position.
        const LocalRange first = p.visible(b, token);
        const LocalRange last = p.visible(b, token + n - 1);
        const std::int32_t split = first.first / kSplit;
        const std::int32_t splits = first.first < last.last ? (last.last - 1) / kSplit + 1 - split : 0;
        for (std::int32_t head = 0; head < p.group; head += plan.heads) {
          f(Item{b, kv_head, token, n, head, std::min(plan.heads, p.group - head), split, splits, -1});
        }
      }
    }
  }
}

struct Counts {
  std::int64_t groups = 0;
  std::int64_t splits = 0;
};

Counts count_groups(const Problem& p, const Plan& plan) {
  Counts c;
  for_each_group(p, plan, [&](const Item& group) {
    ++c.groups;
    c.splits += std::max(1, group.splits);
  });
  return c;
}

/// Calls item(item) for each item and fold(group) for each group that is spread over several.
template <class OnItem, class OnFold>
void for_each_item(const Problem& p, const Plan& plan, OnItem on_item, OnFold on_fold) {
  std::int64_t partial = 0;
  for_each_group(p, plan, [&](Item group) {
    if (group.splits <= plan.splits) {
      on_item(group);
      return;
    }
    group.partial = partial;
    on_fold(group);
    Item item = group;
    for (std::int32_t s = 0; s < group.splits; s += plan.splits) {
      item.split = group.split + s;
      item.splits = std::min(plan.splits, group.splits - s);
      item.partial = partial;
      on_item(item);
      partial += std::int64_t{item.splits} * item.rows();
    }
  });
}

}  // namespace

Plan make_plan(const Problem& p, int threads) {
  Plan plan;
  const std::int32_t max_rows = p.head_dim > 256 ? kMaxRowsWide : kMaxRows;
  plan.heads = ceil_div(p.group, ceil_div(p.group, max_rows));
  std::int32_t max_q_len = 1;
  for (std::int32_t b = 0; b < p.args->batch; ++b) max_q_len = std::max(max_q_len, p.q_len(b));
  Counts counts;
  for (std::int32_t rows = max_rows; rows >= kMinRows; rows /= 2) {
    plan.tokens = std::clamp(rows / plan.heads, 1, max_q_len);
    counts = count_groups(p, plan);
    if (counts.groups >= kItemsPerThread * threads || plan.tokens == 1) break;
  }
  const std::int64_t wanted = kItemsPerThread * threads;
  plan.splits = static_cast<std::int32_t>(std::max<std::int64_t>(1, (counts.splits + wanted - 1) / wanted));
  for_each_item(
      p, plan,
      [&](const Item& item) {
        ++plan.items;
        if (item.partial >= 0) plan.partial_rows = item.partial + std::int64_t{item.splits} * item.rows();
      },
      [&](const Item&) { ++plan.folds; });
  plan.workers = static_cast<std::int32_t>(std::min<std::int64_t>(threads, plan.items));
  return plan;
}

std::size_t map_scratch(const Problem& p, const Plan& plan, char* base, Scratch& s) {
  const std::int64_t rows = std::int64_t{plan.tokens} * plan.heads;
  Carver carver(base);
  s.q = carver.take<float>((rows + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce * p.head_dim);
  s.q_unit = carver.take<float>(rows);
  s.q_sum = carver.take<float>(rows);
  s.scores = carver.take<float>(std::int64_t{kSubRows} * kTile);
  s.weight_unit = carver.take<WeightUnit>(kSubRows);
  s.wide_k = carver.take<float>(std::int64_t{kTile} * p.head_dim);
  s.wide_v = carver.take<float>(std::int64_t{kTile} * p.v_dim);
  s.visible = carver.take<LocalRange>(rows);
  s.max = carver.take<float>(rows);
  s.sum_lanes = carver.take<float>(rows * kStateLanes);
  s.zero_lanes = carver.take<float>(rows * kStateLanes);
  s.o = carver.take<float>(rows * p.v_dim);
  s.total_max = carver.take<float>(rows);
  s.total_sum = carver.take<float>(rows);
  s.total_o = carver.take<float>(rows * p.v_dim);
  return carver.bytes();
}

WorkspaceMap::WorkspaceMap(const Problem& p, const Plan& plan, char* base) {
  Carver carver(base);
  items = carver.take<Item>(plan.items);
  folds = carver.take<Item>(plan.folds);
  partials.max_sum = carver.take<float>(plan.partial_rows * 2);
  partials.o = carver.take<float>(plan.partial_rows * p.v_dim);
  Scratch scratch_map;
  scratch_bytes = map_scratch(p, plan, nullptr, scratch_map);
  scratch = carver.take<char>(static_cast<std::int64_t>(scratch_bytes) * plan.workers);
  bytes = carver.bytes();
}

void list_items(const Problem& p, const Plan& plan, Item* items, Item* folds) {
  for_each_item(
      p, plan, [&](const Item& item) { *items++ = item; }, [&](const Item& fold) { *folds++ = fold; });
}

}  // namespace pagedkv::cpu::attention
