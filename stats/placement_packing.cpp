#include "stats/placement_packing.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "stats/index_of.h"

namespace switchyard::stats {
namespace {

bool lighter(const PackedItem& a, const PackedItem& b) {
  return a.load != b.load ? a.load < b.load : a.kind < b.kind;
}

/// Gains below this share are rounding.
constexpr double kLeastGain = 1e-9;
/// A swap that reaches this share of what the best could gain is taken at once.
constexpr double kGoodEnough = 0.95;

}  // namespace

Packing::Packing(int32_t num_kinds, int32_t capacity, std::span<const double> speeds)
    : capacity_(capacity),
      speeds_(speeds),
      equal_speeds_(std::adjacent_find(speeds.begin(), speeds.end(), std::not_equal_to<>()) ==
                    speeds.end()),
      words_((index_of(num_kinds) + 63) / 64),
      held_(words_ * speeds.size()),
      items_(index_of(capacity) * speeds.size()),
      sizes_(speeds.size()),
      loads_(speeds.size()),
      times_(speeds.size()) {}

std::span<const PackedItem> Packing::items_of(int32_t bin) const {
  return {items_.data() + index_of(bin) * index_of(capacity_), index_of(sizes_[index_of(bin)])};
}

PackedItem* Packing::items(int32_t bin) {
  return items_.data() + index_of(bin) * index_of(capacity_);
}

bool Packing::holds(int32_t bin, int32_t kind) const {
  const uint64_t word = held_[index_of(bin) * words_ + index_of(kind) / 64];
  return (word >> (index_of(kind) % 64) & 1u) != 0;
}

void Packing::mark(int32_t bin, int32_t kind, bool held) {
  uint64_t& word = held_[index_of(bin) * words_ + index_of(kind) / 64];
  const uint64_t bit = uint64_t{1} << (index_of(kind) % 64);
  word = held ? word | bit : word & ~bit;
}

void Packing::add_load(int32_t bin, double load) {
  loads_[index_of(bin)] += load;
  times_[index_of(bin)] = loads_[index_of(bin)] / speeds_[index_of(bin)];
}

double Packing::longest_time() const {
  double longest = 0.0;
  for (int32_t bin = 0; bin < num_bins(); ++bin) longest = std::max(longest, time_of(bin));
  return longest;
}

void Packing::put(int32_t bin, const PackedItem& item) {
  items(bin)[sizes_[index_of(bin)]++] = item;
  add_load(bin, item.load);
  mark(bin, item.kind, true);
}

bool Packing::fill(std::vector<PackedItem>& items) {
  const auto heavier = [](const PackedItem& a, const PackedItem& b) {
    return a.load != b.load ? a.load > b.load : a.kind < b.kind;
  };
  if (!std::is_sorted(items.begin(), items.end(), heavier)) {
    std::sort(items.begin(), items.end(), heavier);
  }
  return equal_speeds_ ? fill_evenly_fast(items) : fill_by_time(items);
}

/// With equal speeds the lightest bin is the one, whatever the item: a heap knows it.
bool Packing::fill_evenly_fast(std::span<const PackedItem> items) {
  using Entry = std::pair<double, int32_t>;
  std::vector<Entry> heap;
  std::vector<Entry> passed;
  for (int32_t bin = 0; bin < num_bins(); ++bin) heap.emplace_back(0.0, bin);
  bool as_wished = true;
  for (const PackedItem& item : items) {
    passed.clear();
    while (!heap.empty() && holds(heap.front().second, item.kind)) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      passed.push_back(heap.back());
      heap.pop_back();
    }
    as_wished = as_wished && passed.empty();
    if (heap.empty()) {
      make_room(item);
      for (auto& [load, bin] : passed) load = loads_[index_of(bin)];
    } else {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      const int32_t bin = heap.back().second;
      heap.pop_back();
      put(bin, item);
      passed.emplace_back(loads_[index_of(bin)], bin);
    }
    for (const Entry& entry : passed) {
      if (sizes_[index_of(entry.second)] == capacity_) continue;
      heap.push_back(entry);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  }
  return as_wished;
}

bool Packing::fill_by_time(std::span<const PackedItem> items) {
  bool as_wished = true;
  for (const PackedItem& item : items) {
    int32_t wished = -1;
    int32_t chosen = -1;
    double wished_time = std::numeric_limits<double>::infinity();
    double chosen_time = wished_time;
    for (int32_t bin = 0; bin < num_bins(); ++bin) {
      if (sizes_[index_of(bin)] == capacity_) continue;
      const double time = (loads_[index_of(bin)] + item.load) / speeds_[index_of(bin)];
      if (time < wished_time) {
        wished_time = time;
        wished = bin;
      }
      if (time < chosen_time && !holds(bin, item.kind)) {
        chosen_time = time;
        chosen = bin;
      }
    }
    as_wished = as_wished && wished == chosen;
    if (chosen < 0) {
      make_room(item);
    } else {
      put(chosen, item);
    }
  }
  return as_wished;
}

/// Every bin with room holds the kind already: another bin takes it and gives up what a bin with
/// room lacks. There is one: a full bin without the kind has at least two items that a bin with
/// room and the kind lacks.
void Packing::make_room(const PackedItem& item) {
  int32_t roomy = -1;
  int32_t giver = -1;
  for (int32_t bin = 0; bin < num_bins(); ++bin) {
    const bool full = sizes_[index_of(bin)] == capacity_;
    if (!full && (roomy < 0 || time_of(bin) < time_of(roomy))) roomy = bin;
    if (full && !holds(bin, item.kind) && (giver < 0 || time_of(bin) < time_of(giver))) {
      giver = bin;
    }
  }
  int32_t given = -1;
  for (int32_t i = 0; i < capacity_; ++i) {
    const PackedItem& candidate = items(giver)[i];
    if (holds(roomy, candidate.kind)) continue;
    if (given < 0 || lighter(candidate, items(giver)[given])) given = i;
  }
  const PackedItem moved = items(giver)[given];
  items(giver)[given] = item;
  add_load(giver, item.load - moved.load);
  mark(giver, moved.kind, false);
  mark(giver, item.kind, true);
  put(roomy, moved);
}

double Packing::lower_bound() const {
  const double total = std::accumulate(loads_.begin(), loads_.end(), 0.0);
  const double bound = total / std::accumulate(speeds_.begin(), speeds_.end(), 0.0);
  // Where all bins are full, the heaviest item shares its bin with the lightest at best.
  std::vector<double> all;
  for (int32_t bin = 0; bin < num_bins(); ++bin) {
    if (sizes_[index_of(bin)] < capacity_) return bound;
    for (const PackedItem& item : items_of(bin)) all.push_back(item.load);
  }
  const auto beside = static_cast<std::ptrdiff_t>(capacity_ - 1);
  const double heaviest = *std::max_element(all.begin(), all.end());
  std::nth_element(all.begin(), all.begin() + beside, all.end());
  const double full = std::accumulate(all.begin(), all.begin() + beside, heaviest);
  return std::max(bound, full / *std::max_element(speeds_.begin(), speeds_.end()));
}

void Packing::sort_all() {
  for (int32_t bin = 0; bin < num_bins(); ++bin) {
    std::sort(items(bin), items(bin) + sizes_[index_of(bin)], lighter);
  }
}

/// Improves `best` by a swap between both bins, if there is a better one. For each item of the
/// slowest, the partner is beside the load that would even both out, which only rises from item to
/// item: one pass over both.
void Packing::find_swap(int32_t slowest, int32_t other, Swap& best) const {
  const double from_load = loads_[index_of(slowest)];
  const double to_load = loads_[index_of(other)];
  const double from_speed = speeds_[index_of(slowest)];
  const double to_speed = speeds_[index_of(other)];
  const double wanted = (from_load * to_speed - to_load * from_speed) / (from_speed + to_speed);
  const std::span<const PackedItem> from = items_of(slowest);
  const std::span<const PackedItem> to = items_of(other);
  std::size_t next = 0;
  const auto consider = [&](std::size_t i, std::size_t j) {
    const double moved = from[i].load - to[j].load;
    if (moved <= 0.0) return;
    const double time = std::max((from_load - moved) / from_speed, (to_load + moved) / to_speed);
    if (time >= best.time || holds(slowest, to[j].kind) || holds(other, from[i].kind)) return;
    best = {time, other, static_cast<int32_t>(i), static_cast<int32_t>(j)};
  };
  for (std::size_t i = 0; i < from.size(); ++i) {
    const double partner = from[i].load - wanted;
    while (next < to.size() && to[next].load < partner) ++next;
    if (next < to.size()) consider(i, next);
    if (next > 0) consider(i, next - 1);
  }
}

void Packing::replace_sorted(int32_t bin, int32_t index, const PackedItem& item) {
  PackedItem* list = items(bin);
  mark(bin, list[index].kind, false);
  mark(bin, item.kind, true);
  add_load(bin, item.load - list[index].load);
  int32_t at = index;
  for (; at > 0 && lighter(item, list[at - 1]); --at) list[at] = list[at - 1];
  for (; at + 1 < sizes_[index_of(bin)] && lighter(list[at + 1], item); ++at) {
    list[at] = list[at + 1];
  }
  list[at] = item;
}

void Packing::swap_items(int32_t slowest, const Swap& swap) {
  const PackedItem given = items(slowest)[swap.index];
  const PackedItem taken = items(swap.other)[swap.other_index];
  replace_sorted(slowest, swap.index, taken);
  replace_sorted(swap.other, swap.other_index, given);
}

void Packing::refine(double enough) {
  sort_all();
  std::vector<int32_t> order(index_of(num_bins()));  // fastest first
  std::iota(order.begin(), order.end(), 0);
  const auto faster = [this](int32_t a, int32_t b) {
    const double difference = time_of(a) - time_of(b);
    return difference != 0.0 ? difference < 0.0 : a < b;
  };
  std::sort(order.begin(), order.end(), faster);
  const int64_t most_swaps = 16 * static_cast<int64_t>(items_.size()) + 64;
  for (int64_t done = 0; done < most_swaps; ++done) {
    const int32_t slowest = order.back();
    const double time = time_of(slowest);
    if (time <= enough) return;
    Swap best{.time = time * (1.0 - kLeastGain)};
    for (std::size_t i = 0; i + 1 < order.size(); ++i) {
      const int32_t other = order[i];
      const double even = (loads_[index_of(slowest)] + loads_[index_of(other)]) /
                          (speeds_[index_of(slowest)] + speeds_[index_of(other)]);
      if (even >= best.time) {
        if (equal_speeds_) break;  // the others can only give less
        continue;
      }
      const bool good_enough = time - best.time >= kGoodEnough * (time - std::max(even, enough));
      if (good_enough && equal_speeds_) break;
      find_swap(slowest, other, best);
    }
    if (best.other < 0) return;
    swap_items(slowest, best);
    for (const int32_t changed : {slowest, best.other}) {
      order.erase(std::find(order.begin(), order.end(), changed));
    }
    for (const int32_t changed : {slowest, best.other}) {
      order.insert(std::lower_bound(order.begin(), order.end(), changed, faster), changed);
    }
  }
}

}  // namespace switchyard::stats
