#include "stats/placement_options.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "stats/index_of.h"
#include "stats/placement_ruin_search.h"
#include "stats/placement_search.h"
#include "stats/placement_target_search.h"

namespace switchyard::stats {
namespace {

/// The search stops this close to the plan from nothing.
constexpr double kTolerance = 1e-4;
/// Of a search, far more than it takes.
constexpr std::size_t kStepsPerSlot = 4;
/// Slots that a layer may move over those there are on average.
constexpr double kMostOverLikely = 2.5;
constexpr int64_t kFewStill = 16;
/// Searches for the time that so many moves reach, and times around it, over the best.
constexpr int kHalvings = 5;
constexpr double kAround[] = {0.7, 0.8, 0.9, 1.1, 1.2, 1.4};
/// Below, step by step is as good.
constexpr double kFewestToAim = 4.0;

/// Each rank's experts in the slots where they were, new ones in the slots that are left.
std::vector<int32_t> keep_in_slots(std::span<const int32_t> in_force, std::vector<int32_t> wanted,
                                   int32_t slots_per_rank) {
  std::vector<int32_t> slots(wanted.size(), -1);
  const auto per_rank = static_cast<std::ptrdiff_t>(slots_per_rank);
  for (std::ptrdiff_t first = 0; first < std::ssize(wanted); first += per_rank) {
    const auto begin = wanted.begin() + first;
    auto end = begin + per_rank;
    for (std::ptrdiff_t slot = first; slot < first + per_rank; ++slot) {
      const int32_t expert = in_force[index_of(slot)];
      const auto found = expert < 0 ? end : std::find(begin, end, expert);
      if (found == end) continue;
      slots[index_of(slot)] = expert;
      end = std::rotate(found, found + 1, end);
    }
    auto next = begin;
    for (std::ptrdiff_t slot = first; slot < first + per_rank; ++slot) {
      if (slots[index_of(slot)] >= 0) continue;
      while (next != end && *next < 0) ++next;
      if (next == end) break;
      slots[index_of(slot)] = *next++;
    }
  }
  return slots;
}

/// The plan's ranks renamed so that they resemble the ranks in force, the most alike first. Ranks
/// change names only with ranks as fast, and of a node where experts stay in theirs.
std::vector<int32_t> match_ranks(const LayerProblem& problem, std::span<const int32_t> in_force,
                                 std::span<const int32_t> fresh) {
  const int32_t per_rank = problem.slots_per_rank;
  std::vector<std::vector<int32_t>> holders(problem.loads.size());
  for (std::size_t slot = 0; slot < in_force.size(); ++slot) {
    if (in_force[slot] < 0) continue;
    holders[index_of(in_force[slot])].push_back(static_cast<int32_t>(slot) / per_rank);
  }
  struct Pair {
    int32_t shared;
    int32_t fresh_rank;
    int32_t rank;
  };
  std::vector<Pair> pairs;
  std::vector<int32_t> shared(problem.speeds.size());
  for (int32_t fresh_rank = 0; fresh_rank < problem.num_ranks(); ++fresh_rank) {
    std::fill(shared.begin(), shared.end(), 0);
    for (int32_t i = 0; i < per_rank; ++i) {
      const int32_t expert = fresh[index_of(int64_t{fresh_rank} * per_rank + i)];
      if (expert < 0) continue;
      for (const int32_t rank : holders[index_of(expert)]) ++shared[index_of(rank)];
    }
    for (int32_t rank = 0; rank < problem.num_ranks(); ++rank) {
      const bool same_speed =
          problem.speeds[index_of(rank)] == problem.speeds[index_of(fresh_rank)];
      const bool same_node = problem.ranks_per_node == 0 ||
                             rank / problem.ranks_per_node == fresh_rank / problem.ranks_per_node;
      const int32_t count = shared[index_of(rank)];
      if (same_speed && same_node && count > 0) pairs.push_back({count, fresh_rank, rank});
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Pair& a, const Pair& b) { return a.shared > b.shared; });
  std::vector<int32_t> rank_of_fresh(problem.speeds.size(), -1);
  std::vector<int32_t> fresh_of_rank(problem.speeds.size(), -1);
  const auto match = [&](int32_t fresh_rank, int32_t rank) {
    rank_of_fresh[index_of(fresh_rank)] = rank;
    fresh_of_rank[index_of(rank)] = fresh_rank;
  };
  for (const Pair& pair : pairs) {
    if (rank_of_fresh[index_of(pair.fresh_rank)] < 0 && fresh_of_rank[index_of(pair.rank)] < 0) {
      match(pair.fresh_rank, pair.rank);
    }
  }
  for (int32_t fresh_rank = 0; fresh_rank < problem.num_ranks(); ++fresh_rank) {
    if (rank_of_fresh[index_of(fresh_rank)] >= 0) continue;
    for (int32_t rank = 0; rank < problem.num_ranks(); ++rank) {
      const bool same_speed =
          problem.speeds[index_of(rank)] == problem.speeds[index_of(fresh_rank)];
      const bool same_node = problem.ranks_per_node == 0 ||
                             rank / problem.ranks_per_node == fresh_rank / problem.ranks_per_node;
      if (fresh_of_rank[index_of(rank)] >= 0 || !same_speed || !same_node) continue;
      match(fresh_rank, rank);
      break;
    }
  }
  std::vector<int32_t> matched(fresh.size(), -1);
  for (int32_t rank = 0; rank < problem.num_ranks(); ++rank) {
    const auto from = fresh.begin() + std::ptrdiff_t{fresh_of_rank[index_of(rank)]} * per_rank;
    std::copy(from, from + per_rank, matched.begin() + std::ptrdiff_t{rank} * per_rank);
  }
  return keep_in_slots(in_force, std::move(matched), per_rank);
}

/// The search takes a second copy on a rank for an empty slot.
void drop_second_copies(std::vector<int32_t>& slots, int32_t slots_per_rank) {
  const auto per_rank = static_cast<std::ptrdiff_t>(slots_per_rank);
  for (auto first = slots.begin(); first != slots.end(); first += per_rank) {
    for (auto slot = first; slot != first + per_rank; ++slot) {
      if (std::find(first, slot, *slot) != slot) *slot = -1;
    }
  }
}

}  // namespace

int64_t count_moved(std::span<const int32_t> before, std::span<const int32_t> after) {
  int64_t moved = 0;
  for (std::size_t slot = 0; slot < after.size(); ++slot) {
    moved += after[slot] != before[slot] ? 1 : 0;
  }
  return moved;
}

std::vector<int32_t> LayerOptions::slots_of(const PlacementOption& option,
                                            std::span<const int32_t> in_force,
                                            int32_t slots_per_rank) const {
  std::vector<int32_t> slots(in_force.begin(), in_force.end());
  if (option.from_nothing) return from_nothing;
  if (option.num_changes == 0) return slots;
  for (std::size_t i = 0; i < option.num_changes; ++i) {
    const PlacementState::Change& change = searches[option.search][i];
    slots[index_of(change.slot)] = change.expert;
  }
  drop_second_copies(slots, slots_per_rank);
  return keep_in_slots(in_force, std::move(slots), slots_per_rank);
}

namespace {

/// The first, then only what is faster than all that moves fewer slots.
std::vector<PlacementOption> only_best(const PlacementOption& first,
                                       std::vector<PlacementOption> candidates) {
  std::stable_sort(
      candidates.begin(), candidates.end(), [](const PlacementOption& a, const PlacementOption& b) {
        return a.moved_slots != b.moved_slots ? a.moved_slots < b.moved_slots : a.time < b.time;
      });
  std::vector<PlacementOption> options{first};
  for (const PlacementOption& candidate : candidates) {
    if (candidate.time < options.back().time) options.push_back(candidate);
  }
  return options;
}

/// Finds a layer's options one after another.
class OptionSearch {
 public:
  OptionSearch(const LayerProblem& problem, std::span<const int32_t> in_force, int64_t most_moved)
      : problem_(problem), in_force_(in_force), most_moved_(most_moved) {}

  void add(const PlacementOption& candidate) {
    if (candidate.moved_slots <= most_moved_) candidates_.push_back(candidate);
  }

  /// Step by step, each the one that makes the slowest rank faster for the fewest slots.
  void descend(double enough, int64_t most_moved) {
    PlacementSearch search(problem_, in_force_);
    for (std::size_t left = kStepsPerSlot * in_force_.size(); left > 0; --left) {
      if (search.longest_time() <= enough || !search.step()) break;
      const PlacementState& state = search.state();
      if (state.moved() > most_moved) break;
      add({.moved_slots = state.moved(),
           .time = search.longest_time(),
           .search = searches_.size(),
           .num_changes = state.changes().size()});
    }
    searches_.push_back(search.state().changes());
  }

  /// Towards times between `enough` and what is in force that take about `likely` slots.
  void aim(double enough, double likely) {
    double low = enough;
    double high = longest_time(problem_, in_force_);
    TargetSearch search(problem_, in_force_, high);
    const auto most_moved = static_cast<int64_t>(likely * kMostOverLikely);
    for (int halving = 0; halving < kHalvings; ++halving) {
      const double middle = std::sqrt(low * high);
      (aim_at(search, middle, most_moved) <= likely ? high : low) = middle;
    }
    for (const double factor : kAround) {
      aim_at(search, enough + (high - enough) * factor, most_moved);
    }
  }

  [[nodiscard]] std::vector<PlacementOption> best_options() {
    return only_best({.time = longest_time(problem_, in_force_)}, std::move(candidates_));
  }

  [[nodiscard]] std::vector<std::vector<PlacementState::Change>> take_searches() {
    return std::move(searches_);
  }

 private:
  /// @return slots moved, infinity where that was not enough.
  double aim_at(TargetSearch& search, double target, int64_t most_moved) {
    search.undo_to(0);
    search.aim_at(target);
    if (!search.run(most_moved)) return std::numeric_limits<double>::infinity();
    const PlacementState& state = search.state();
    add({.moved_slots = state.moved(),
         .time = state.time_of(state.slowest_rank()),
         .search = searches_.size(),
         .num_changes = state.changes().size()});
    searches_.push_back(state.changes());
    return state.moved();
  }

  const LayerProblem& problem_;
  std::span<const int32_t> in_force_;
  int64_t most_moved_;
  std::vector<PlacementOption> candidates_;
  std::vector<std::vector<PlacementState::Change>> searches_;
};

}  // namespace

LayerOptions find_options(const LayerProblem& problem, std::span<const int32_t> in_force,
                          std::span<const int32_t> fresh, int64_t most_moved, double likely) {
  LayerOptions found;
  found.from_nothing = match_ranks(problem, in_force, fresh);
  const PlacementOption all{.moved_slots = count_moved(in_force, found.from_nothing),
                            .time = longest_time(problem, fresh),
                            .from_nothing = true};
  const double enough = all.time * (1.0 + kTolerance);
  OptionSearch search(problem, in_force, most_moved);
  search.add(all);
  const bool scarce = likely < static_cast<double>(all.moved_slots);
  const auto many = std::max<int64_t>(static_cast<int64_t>(likely * kMostOverLikely), kFewStill);
  search.descend(enough, scarce ? std::min(most_moved, many) : most_moved);
  if (scarce && likely >= kFewestToAim) search.aim(enough, likely);
  found.options = search.best_options();
  found.searches = search.take_searches();
  found.attainable_time = std::min(all.time, found.options.back().time);
  return found;
}

void improve_option(const LayerProblem& problem, std::span<const int32_t> in_force,
                    std::size_t option, LayerOptions& layer) {
  const PlacementOption& start = layer.options[option];
  if (start.moved_slots == 0 || start.from_nothing) return;
  const double enough = layer.attainable_time * (1.0 + kTolerance);
  RuinSearch search(problem, in_force, layer.slots_of(start, in_force, problem.slots_per_rank),
                    enough);
  for (RuinSearch::Reached& reached : search.run()) {
    layer.options.push_back({.moved_slots = reached.moved_slots,
                             .time = reached.time,
                             .search = layer.searches.size(),
                             .num_changes = reached.changes.size()});
    layer.searches.push_back(std::move(reached.changes));
  }
  const PlacementOption keep = layer.options.front();
  layer.options.erase(layer.options.begin());
  layer.options = only_best(keep, std::move(layer.options));
}

std::vector<std::size_t> choose_options(std::span<const LayerOptions> layers, int64_t most_moved,
                                        std::span<const double> min_time_per_slot) {
  std::vector<std::size_t> chosen(layers.size());
  int64_t left = most_moved;
  const auto gain_of = [&](std::size_t layer, std::size_t option) {
    return layers[layer].options[chosen[layer]].time - layers[layer].options[option].time;
  };
  const auto slots_of = [&](std::size_t layer, std::size_t option) {
    return layers[layer].options[option].moved_slots -
           layers[layer].options[chosen[layer]].moved_slots;
  };
  // The steepest next step of each layer, to which nothing later in the layer is steeper.
  struct Next {
    double slope = 0.0;
    std::size_t option = 0;
  };
  const auto next_of = [&](std::size_t layer) {
    Next next;
    for (std::size_t i = chosen[layer] + 1; i < layers[layer].options.size(); ++i) {
      if (slots_of(layer, i) > left) break;
      const double slope =
          gain_of(layer, i) / static_cast<double>(std::max<int64_t>(slots_of(layer, i), 1));
      if (slope >= next.slope && slope > min_time_per_slot[layer]) next = {slope, i};
    }
    return next;
  };
  std::vector<Next> next(layers.size());
  for (std::size_t layer = 0; layer < layers.size(); ++layer) next[layer] = next_of(layer);
  while (true) {
    std::size_t best = layers.size();
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
      if (next[layer].option == 0) continue;
      if (slots_of(layer, next[layer].option) > left) next[layer] = next_of(layer);
      if (next[layer].option == 0) continue;
      if (best == layers.size() || next[layer].slope > next[best].slope) best = layer;
    }
    if (best == layers.size()) return chosen;
    left -= slots_of(best, next[best].option);
    chosen[best] = next[best].option;
    next[best] = next_of(best);
  }
}

}  // namespace switchyard::stats
