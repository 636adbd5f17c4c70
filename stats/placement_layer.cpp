#include "stats/placement_layer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "stats/index_of.h"
#include "stats/placement_annealing.h"
#include "stats/placement_counts.h"
#include "stats/placement_packing.h"
#include "stats/placement_search.h"

namespace switchyard::stats {
namespace {

/// As near to the bound as pays for the time that swaps take.
constexpr double kTolerance = 1e-4;
/// Sums of another order differ by less.
constexpr double kRounding = 1e-12;
/// Of a search, far more than it takes.
constexpr std::size_t kStepsPerSlot = 4;
/// Where copies on one rank would have been better.
constexpr int64_t kCountingWork = 400'000;   ///< packings times slots
constexpr int64_t kAnnealingWork = 400'000;  ///< steps times ranks
constexpr uint64_t kSeed = 1;

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
  return search.state().slots();
}

/// Two copies of an expert on a rank are as much load as a copy of half as many: with ranks of its
/// own for each expert in turn, so few that they take about as long as is wanted.
std::vector<int32_t> place_with_own_ranks(const LayerProblem& problem, double wanted,
                                          int64_t num_packings) {
  const double total = std::accumulate(problem.loads.begin(), problem.loads.end(), 0.0);
  for (int32_t expert = 0; expert < problem.num_experts(); ++expert) {
    const double load = problem.loads[index_of(expert)];
    const double own = std::max(1.0, std::ceil(load / wanted));
    const double others = problem.num_ranks() - own;
    if (others < 1.0 || others * problem.slots_per_rank < problem.num_experts() - 1) continue;
    if (total - load > others * wanted) continue;
    std::vector<double> loads(problem.loads.begin(), problem.loads.end());
    loads.erase(loads.begin() + expert);
    const LayerProblem rest{.loads = loads,
                            .speeds = problem.speeds.first(static_cast<std::size_t>(others)),
                            .slots_per_rank = problem.slots_per_rank};
    const std::vector<int32_t> counts =
        replica_counts(loads, int64_t{rest.num_ranks()} * rest.slots_per_rank, rest.num_ranks());
    std::vector<int32_t> slots = search_counts(rest, counts, wanted, num_packings);
    if (longest_time(rest, slots) > wanted) continue;
    for (int32_t& slot : slots) slot += slot >= expert ? 1 : 0;
    slots.resize(index_of(int64_t{problem.num_ranks()} * problem.slots_per_rank), -1);
    for (std::size_t i = index_of(int64_t{rest.num_ranks()} * rest.slots_per_rank);
         i < slots.size(); i += index_of(problem.slots_per_rank)) {
      slots[i] = expert;
    }
    return slots;
  }
  return {};
}

}  // namespace

std::vector<int32_t> place_globally(const LayerProblem& problem) {
  const auto num_slots = int64_t{problem.num_ranks()} * problem.slots_per_rank;
  const std::vector<int32_t> counts = replica_counts(problem.loads, num_slots, problem.num_ranks());
  PackedCopies first = pack_copies(problem, counts, kTolerance);
  std::vector<int32_t> best = std::move(first.slots);
  const bool equal_speeds = std::adjacent_find(problem.speeds.begin(), problem.speeds.end(),
                                               std::not_equal_to<>()) == problem.speeds.end();
  // A packing as wished is the plain greedy one, which swaps only made better.
  const bool capped = *std::max_element(counts.begin(), counts.end()) == problem.num_ranks();
  if (first.as_wished && !capped && equal_speeds) return best;
  double best_time = longest_time(problem, best);
  const auto keep = [&](std::vector<int32_t> slots) {
    if (slots.empty()) return;
    const double time = longest_time(problem, slots);
    if (time >= best_time) return;
    best_time = time;
    best = std::move(slots);
  };
  const std::vector<int32_t> twins = place_with_twins(problem);
  if (equal_speeds) {
    const double wanted = longest_time(problem, twins) * (1.0 + kRounding);
    const int64_t num_packings = kCountingWork / num_slots + 1;
    const int64_t num_steps = kAnnealingWork / problem.num_ranks() + 1;
    if (best_time > wanted) keep(pack_copies(problem, counts, 0.0).slots);
    if (best_time > wanted) keep(searched(problem, best));
    if (best_time > wanted) keep(searched(problem, twins));
    if (best_time > wanted) keep(search_counts(problem, counts, wanted, num_packings));
    if (best_time > wanted) keep(anneal(problem, best, wanted, num_steps, kSeed));
    if (best_time > wanted) keep(place_with_own_ranks(problem, wanted, num_packings));
  } else {
    // Slow ranks may be better off with slots empty, which no swap achieves.
    keep(searched(problem, best));
  }
  if (problem.may_repeat_on_rank) keep(twins);
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
                        .slots_per_rank = problem.slots_per_rank,
                        .may_repeat_on_rank = problem.may_repeat_on_rank});
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
