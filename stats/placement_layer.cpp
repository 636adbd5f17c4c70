#include "stats/placement_layer.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "stats/placement_annealing.h"
#include "stats/placement_packing.h"

namespace switchyard::stats {
namespace {

std::size_t index_of(int64_t value) { return static_cast<std::size_t>(value); }

/// As near to the bound as pays for the time that swaps take.
constexpr double kTolerance = 1e-4;
/// Sums of another order differ by less.
constexpr double kRounding = 1e-12;
/// Of a search, far more than it takes.
constexpr std::size_t kStepsPerSlot = 4;
/// Starts with fewer copies that are tried where copies on one rank would have been better.
constexpr int32_t kStartsWithFewerCopies = 8;
constexpr uint64_t kAnnealings = 3;
constexpr int64_t kAnnealingWork = 400'000;  ///< steps times ranks

/// Heaviest first, equal ones by the lower expert.
std::vector<PackedItem> copies_of(std::span<const double> loads,
                                  const std::vector<int32_t>& counts) {
  std::vector<PackedItem> experts;
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    experts.push_back({loads[expert] / counts[expert], static_cast<int32_t>(expert)});
  }
  std::sort(experts.begin(), experts.end(), [](const PackedItem& a, const PackedItem& b) {
    return a.load != b.load ? a.load > b.load : a.kind < b.kind;
  });
  std::vector<PackedItem> items;
  for (const PackedItem& copy : experts) {
    items.insert(items.end(), index_of(counts[index_of(copy.kind)]), copy);
  }
  return items;
}

std::vector<int32_t> slots_of(const Packing& packing) {
  std::vector<int32_t> slots(index_of(packing.num_bins()) * index_of(packing.capacity()), -1);
  for (int32_t bin = 0; bin < packing.num_bins(); ++bin) {
    std::size_t slot = index_of(bin) * index_of(packing.capacity());
    for (const PackedItem& item : packing.items_of(bin)) slots[slot++] = item.kind;
  }
  return slots;
}

/// What the plain greedy packing gives where a rank may hold several copies of an expert. Such a
/// rank takes a larger share of the expert than others: now and then that fits better. Speeds are
/// all alike.
std::vector<int32_t> place_with_twins(const LayerProblem& problem) {
  const auto num_slots = int64_t{problem.num_ranks()} * problem.slots_per_rank;
  const std::vector<PackedItem> items = copies_of(
      problem.loads, replica_counts(problem.loads, num_slots, static_cast<int32_t>(num_slots)));
  std::vector<int32_t> slots(index_of(num_slots), -1);
  std::vector<int32_t> sizes(problem.speeds.size());
  std::vector<std::pair<double, int32_t>> ranks;
  for (int32_t rank = 0; rank < problem.num_ranks(); ++rank) ranks.emplace_back(0.0, rank);
  for (const PackedItem& item : items) {
    std::pop_heap(ranks.begin(), ranks.end(), std::greater<>());
    auto& [load, rank] = ranks.back();
    int32_t& size = sizes[index_of(rank)];
    slots[index_of(int64_t{rank} * problem.slots_per_rank + size)] = item.kind;
    load += item.load;
    if (++size == problem.slots_per_rank) {
      ranks.pop_back();
    } else {
      std::push_heap(ranks.begin(), ranks.end(), std::greater<>());
    }
  }
  return slots;
}

std::vector<int32_t> searched(LayerProblem problem, const std::vector<int32_t>& start) {
  problem.may_drop_copies = true;
  PlacementSearch search(problem, start);
  for (std::size_t left = kStepsPerSlot * start.size(); left > 0 && search.step(); --left) {
  }
  return search.slot_to_expert();
}

struct Packed {
  std::vector<int32_t> slots;
  /// Whether the plain greedy algorithm, which allows twins, would have gone the same way.
  bool as_wished = false;
};

Packed packed(const LayerProblem& problem, int64_t num_copies, double tolerance) {
  const std::vector<int32_t> counts =
      replica_counts(problem.loads, num_copies, problem.num_ranks());
  std::vector<PackedItem> items = copies_of(problem.loads, counts);
  Packing packing(problem.num_experts(), problem.slots_per_rank, problem.speeds);
  Packed result;
  const bool capped = *std::max_element(counts.begin(), counts.end()) == problem.num_ranks();
  result.as_wished = packing.fill(items) && !capped;
  packing.refine(packing.lower_bound() * (1.0 + tolerance));
  result.slots = slots_of(packing);
  return result;
}

}  // namespace

std::vector<int32_t> replica_counts(std::span<const double> loads, int64_t num_slots,
                                    int32_t most_copies) {
  std::vector<int32_t> counts(loads.size(), 1);
  struct Candidate {
    double load;
    int32_t copies;
    int32_t expert;
  };
  const auto after = [](const Candidate& a, const Candidate& b) {
    if (a.load != b.load) return a.load < b.load;
    if (a.load == 0.0 && a.copies != b.copies) return a.copies > b.copies;
    return a.expert > b.expert;
  };
  std::vector<Candidate> heap;
  if (most_copies > 1) {
    for (std::size_t i = 0; i < loads.size(); ++i) {
      heap.push_back({loads[i], 1, static_cast<int32_t>(i)});
    }
  }
  std::make_heap(heap.begin(), heap.end(), after);
  auto left = num_slots - static_cast<int64_t>(loads.size());
  for (; left > 0 && !heap.empty(); --left) {
    std::pop_heap(heap.begin(), heap.end(), after);
    Candidate& next = heap.back();
    const std::size_t expert = index_of(next.expert);
    next.copies = ++counts[expert];
    next.load = loads[expert] / next.copies;
    if (next.copies == most_copies) {
      heap.pop_back();
    } else {
      std::push_heap(heap.begin(), heap.end(), after);
    }
  }
  return counts;
}

std::vector<int32_t> place_globally(const LayerProblem& problem) {
  const auto num_slots = int64_t{problem.num_ranks()} * problem.slots_per_rank;
  Packed first = packed(problem, num_slots, kTolerance);
  std::vector<int32_t> best = std::move(first.slots);
  const bool equal_speeds = std::adjacent_find(problem.speeds.begin(), problem.speeds.end(),
                                               std::not_equal_to<>()) == problem.speeds.end();
  // A packing as wished is the plain greedy one, which swaps only made better.
  if (first.as_wished && equal_speeds) return best;
  double best_time = longest_time(problem, best);
  if (!equal_speeds) {
    // Slow ranks may be better off with slots empty, which no swap achieves.
    std::vector<int32_t> slots = searched(problem, best);
    return longest_time(problem, slots) < best_time ? slots : best;
  }
  const std::vector<int32_t> twins = place_with_twins(problem);
  const double wanted = longest_time(problem, twins) * (1.0 + kRounding);
  const auto keep = [&](std::vector<int32_t> slots) {
    const double time = longest_time(problem, slots);
    if (time >= best_time) return;
    best_time = time;
    best = std::move(slots);
  };
  if (best_time > wanted) keep(packed(problem, num_slots, 0.0).slots);
  if (best_time > wanted) keep(searched(problem, best));
  if (best_time > wanted) keep(searched(problem, twins));
  const int64_t fewest =
      std::max<int64_t>(problem.num_experts(), num_slots - kStartsWithFewerCopies);
  for (int64_t copies = num_slots - 1; copies >= fewest && best_time > wanted; --copies) {
    keep(searched(problem, packed(problem, copies, 0.0).slots));
  }
  const std::vector<int32_t> start = best;
  const int64_t num_steps = kAnnealingWork / problem.num_ranks() + 1;
  for (uint64_t seed = 1; seed <= kAnnealings && best_time > wanted; ++seed) {
    keep(anneal(problem, start, wanted, num_steps, seed));
  }
  return best;
}

namespace {

struct NodeExperts {
  std::vector<std::vector<int32_t>> nodes;  ///< experts of each, ascending
  double longest_time = 0.0;                ///< of a node whose ranks share its load evenly

  bool operator==(const NodeExperts&) const = default;
};

NodeExperts experts_of_nodes(const LayerProblem& problem, int32_t num_groups, bool refines) {
  const int32_t num_nodes = problem.num_ranks() / problem.ranks_per_node;
  const int32_t group_size = problem.num_experts() / num_groups;
  std::vector<PackedItem> groups;
  for (int32_t group = 0; group < num_groups; ++group) {
    const auto first = problem.loads.begin() + std::ptrdiff_t{group} * group_size;
    groups.push_back({std::accumulate(first, first + group_size, 0.0), group});
  }
  std::vector<double> speeds(index_of(num_nodes));
  for (int32_t rank = 0; rank < problem.num_ranks(); ++rank) {
    speeds[index_of(rank / problem.ranks_per_node)] += problem.speeds[index_of(rank)];
  }
  Packing packing(num_groups, num_groups / num_nodes, speeds);
  packing.fill(groups);
  if (refines) packing.refine(packing.lower_bound());
  NodeExperts found{std::vector<std::vector<int32_t>>(index_of(num_nodes)), packing.longest_time()};
  for (int32_t node = 0; node < num_nodes; ++node) {
    std::vector<int32_t>& experts = found.nodes[index_of(node)];
    for (const PackedItem& group : packing.items_of(node)) {
      for (int32_t i = 0; i < group_size; ++i) experts.push_back(group.kind * group_size + i);
    }
    std::sort(experts.begin(), experts.end());
  }
  return found;
}

std::vector<int32_t> place_nodes(const LayerProblem& problem,
                                 const std::vector<std::vector<int32_t>>& nodes) {
  std::vector<int32_t> slots;
  std::vector<double> loads;
  for (std::size_t node = 0; node < nodes.size(); ++node) {
    loads.clear();
    for (const int32_t expert : nodes[node]) loads.push_back(problem.loads[index_of(expert)]);
    const std::vector<int32_t> placed =
        place_globally({.loads = loads,
                        .speeds = problem.speeds.subspan(node * index_of(problem.ranks_per_node),
                                                         index_of(problem.ranks_per_node)),
                        .slots_per_rank = problem.slots_per_rank});
    for (const int32_t local : placed) {
      slots.push_back(local < 0 ? -1 : nodes[node][index_of(local)]);
    }
  }
  return slots;
}

}  // namespace

std::vector<int32_t> place_in_nodes(const LayerProblem& problem, int32_t num_groups) {
  const NodeExperts even = experts_of_nodes(problem, num_groups, true);
  std::vector<int32_t> best = place_nodes(problem, even.nodes);
  const NodeExperts plain = experts_of_nodes(problem, num_groups, false);
  const double best_time = longest_time(problem, best);
  if (plain == even || plain.longest_time >= best_time) return best;
  // Nodes of more even loads may hold experts that do not fit their ranks as well.
  std::vector<int32_t> other = place_nodes(problem, plain.nodes);
  return longest_time(problem, other) < best_time ? other : best;
}

}  // namespace switchyard::stats
