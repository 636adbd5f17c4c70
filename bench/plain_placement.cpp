#include "bench/plain_placement.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace switchyard::bench {
namespace {

/// Bin of each item, all bins with equally many.
std::vector<std::size_t> pack(const std::vector<double>& loads, std::size_t num_bins) {
  const std::size_t capacity = loads.size() / num_bins;
  std::vector<std::size_t> order(loads.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return loads[a] > loads[b]; });
  std::vector<double> totals(num_bins);
  std::vector<std::size_t> sizes(num_bins);
  std::vector<std::size_t> bins(loads.size());
  for (const std::size_t item : order) {
    std::size_t lightest = num_bins;
    for (std::size_t bin = 0; bin < num_bins; ++bin) {
      if (sizes[bin] == capacity) continue;
      if (lightest == num_bins || totals[bin] < totals[lightest]) lightest = bin;
    }
    bins[item] = lightest;
    totals[lightest] += loads[item];
    ++sizes[lightest];
  }
  return bins;
}

/// Experts of all slots of one node.
std::vector<int32_t> place_node(std::span<const double> loads, const std::vector<int32_t>& experts,
                                std::size_t num_ranks, std::size_t num_slots) {
  std::vector<std::size_t> copies(experts.size(), 1);
  const auto load_of = [&](std::size_t i) {
    return loads[static_cast<std::size_t>(experts[i])] / static_cast<double>(copies[i]);
  };
  std::vector<std::size_t> chosen(experts.size());
  std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  while (chosen.size() < num_slots) {
    std::size_t most = 0;
    for (std::size_t i = 1; i < experts.size(); ++i) {
      if (load_of(i) > load_of(most)) most = i;
    }
    ++copies[most];
    chosen.push_back(most);
  }
  std::vector<double> items;
  for (const std::size_t i : chosen) items.push_back(load_of(i));
  const std::vector<std::size_t> ranks = pack(items, num_ranks);
  std::vector<int32_t> slots(num_slots);
  std::vector<std::size_t> next(num_ranks);
  for (std::size_t item = 0; item < chosen.size(); ++item) {
    const std::size_t rank = ranks[item];
    slots[rank * (num_slots / num_ranks) + next[rank]++] = experts[chosen[item]];
  }
  return slots;
}

}  // namespace

std::vector<int32_t> place_plainly(std::span<const double> loads, int32_t num_ranks,
                                   int32_t num_slots, int32_t num_nodes, int32_t num_groups) {
  if (num_groups % num_nodes != 0) num_nodes = num_groups = 1;
  const auto nodes = static_cast<std::size_t>(num_nodes);
  const std::size_t group_size = loads.size() / static_cast<std::size_t>(num_groups);
  std::vector<double> groups(static_cast<std::size_t>(num_groups));
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    groups[expert / group_size] += loads[expert];
  }
  const std::vector<std::size_t> node_of_group = pack(groups, nodes);
  std::vector<std::vector<int32_t>> experts(nodes);
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    experts[node_of_group[expert / group_size]].push_back(static_cast<int32_t>(expert));
  }
  std::vector<int32_t> slots;
  for (const std::vector<int32_t>& own : experts) {
    const std::vector<int32_t> placed =
        place_node(loads, own, static_cast<std::size_t>(num_ranks) / nodes,
                   static_cast<std::size_t>(num_slots) / nodes);
    slots.insert(slots.end(), placed.begin(), placed.end());
  }
  return slots;
}

double plain_max_over_mean(std::span<const double> loads, std::span<const int32_t> slot_to_expert,
                           int32_t num_ranks) {
  std::vector<double> copies(loads.size());
  for (const int32_t expert : slot_to_expert) {
    if (expert >= 0) copies[static_cast<std::size_t>(expert)] += 1.0;
  }
  const std::size_t per_rank = slot_to_expert.size() / static_cast<std::size_t>(num_ranks);
  std::vector<double> ranks(static_cast<std::size_t>(num_ranks));
  for (std::size_t slot = 0; slot < slot_to_expert.size(); ++slot) {
    if (slot_to_expert[slot] < 0) continue;
    const auto expert = static_cast<std::size_t>(slot_to_expert[slot]);
    ranks[slot / per_rank] += loads[expert] / copies[expert];
  }
  const double total = std::accumulate(loads.begin(), loads.end(), 0.0);
  if (total == 0.0) return 1.0;
  return *std::max_element(ranks.begin(), ranks.end()) * num_ranks / total;
}

int32_t count_twins(std::span<const int32_t> slot_to_expert, int32_t num_ranks) {
  const auto per_rank =
      static_cast<std::ptrdiff_t>(slot_to_expert.size()) / std::ptrdiff_t{num_ranks};
  int32_t twins = 0;
  for (auto rank = slot_to_expert.begin(); rank != slot_to_expert.end(); rank += per_rank) {
    for (auto slot = rank; slot != rank + per_rank; ++slot) {
      twins += *slot >= 0 && std::find(rank, slot, *slot) != slot ? 1 : 0;
    }
  }
  return twins;
}

}  // namespace switchyard::bench
