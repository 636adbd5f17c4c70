// A whole placement of a layer that a search changes slot by slot, with the ranks' loads and what
// was moved.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard::stats {

/// One layer's loads and the room for its experts.
struct LayerProblem {
  std::span<const double> loads;   ///< [num_experts] of all copies together
  std::span<const double> speeds;  ///< [num_ranks]
  int32_t slots_per_rank = 0;
  int32_t ranks_per_node = 0;       ///< where experts stay in their node, else 0
  bool may_drop_copies = false;     ///< whether a search may empty slots
  bool may_repeat_on_rank = false;  ///< whether a plan may put copies of an expert on one rank

  [[nodiscard]] int32_t num_experts() const { return static_cast<int32_t>(loads.size()); }
  [[nodiscard]] int32_t num_ranks() const { return static_cast<int32_t>(speeds.size()); }
};

/// Load over speed of the slowest rank when copies share their expert's load evenly.
/// @param slot_to_expert  [num_ranks * slots_per_rank], -1 an empty slot.
double longest_time(const LayerProblem& problem, std::span<const int32_t> slot_to_expert);

/// What longest_time() cannot go below.
double mean_time(const LayerProblem& problem);

class PlacementState {
 public:
  /// A slot that was given to an expert, or emptied: -1.
  struct Change {
    int32_t slot = 0;
    int32_t expert = 0;
    int32_t before = 0;  ///< what the slot held
  };

  /// @param slot_to_expert  a second copy of an expert on a rank counts as an empty slot.
  PlacementState(const LayerProblem& problem, std::span<const int32_t> slot_to_expert);

  [[nodiscard]] const LayerProblem& problem() const { return problem_; }
  /// [num_ranks * slots_per_rank]
  [[nodiscard]] const std::vector<int32_t>& slots() const { return slots_; }
  [[nodiscard]] int32_t expert_in(int32_t slot) const {
    return slots_[static_cast<std::size_t>(slot)];
  }
  [[nodiscard]] int32_t rank_of(int32_t slot) const { return slot / problem_.slots_per_rank; }
  /// Ranks with a copy.
  [[nodiscard]] std::span<const int32_t> holders(int32_t expert) const {
    return holders_[static_cast<std::size_t>(expert)];
  }
  [[nodiscard]] bool holds(int32_t rank, int32_t expert) const {
    return holds_[place_of(rank, expert)] != 0;
  }
  /// Whether it was there at the start.
  [[nodiscard]] bool held(int32_t rank, int32_t expert) const {
    return held_[place_of(rank, expert)] != 0;
  }
  /// Whether a copy may be on the rank: not beside another, and in the expert's node where it has
  /// one.
  [[nodiscard]] bool may_hold(int32_t rank, int32_t expert) const {
    return !holds(rank, expert) && (problem_.ranks_per_node == 0 || in_node_of(rank, expert));
  }

  [[nodiscard]] double load(int32_t rank) const { return loads_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] double speed(int32_t rank) const {
    return problem_.speeds[static_cast<std::size_t>(rank)];
  }
  [[nodiscard]] double time_of(int32_t rank) const { return load(rank) / speed(rank); }
  [[nodiscard]] int32_t slowest_rank() const;
  /// Load of each copy were there `more` of them.
  [[nodiscard]] double share(int32_t expert, int32_t more = 0) const {
    const auto copies = static_cast<int32_t>(holders(expert).size());
    return problem_.loads[static_cast<std::size_t>(expert)] / (copies + more);
  }

  /// Slots that differ from the start, experts that are back on their rank in their old slots.
  [[nodiscard]] int32_t moved() const { return moved_; }
  /// Those of one rank.
  [[nodiscard]] int32_t moved_on(int32_t rank) const {
    return moved_on_[static_cast<std::size_t>(rank)];
  }
  /// What `moved()` would rise by were one of the rank's slots to change hands.
  [[nodiscard]] int32_t cost(int32_t rank, int32_t removed, int32_t added) const {
    return cost_of_losing(rank, removed) + cost_of_getting(rank, added);
  }
  /// A slot has not moved where it holds what the rank held, or stays empty: -1.
  [[nodiscard]] int32_t cost_of_losing(int32_t rank, int32_t expert) const {
    const auto at = static_cast<std::size_t>(rank);
    const bool stayed = expert < 0 ? empty_[at] <= empty_at_start_[at] : held(rank, expert);
    return stayed ? 1 : 0;
  }
  [[nodiscard]] int32_t cost_of_getting(int32_t rank, int32_t expert) const {
    const auto at = static_cast<std::size_t>(rank);
    const bool stays = expert < 0 ? empty_[at] < empty_at_start_[at] : held(rank, expert);
    return stays ? -1 : 0;
  }
  /// All changes so far.
  [[nodiscard]] const std::vector<Change>& changes() const { return changes_; }

  /// Gives a slot to an expert, -1: to none.
  void change(int32_t slot, int32_t expert);
  /// Swaps what two slots of different ranks hold.
  void exchange(int32_t slot, int32_t other);
  /// Takes the last change back, also from changes(). Loads come back but for rounding.
  void undo();

 private:
  [[nodiscard]] std::size_t place_of(int32_t rank, int32_t expert) const {
    return static_cast<std::size_t>(rank) * problem_.loads.size() +
           static_cast<std::size_t>(expert);
  }
  [[nodiscard]] bool in_node_of(int32_t rank, int32_t expert) const;
  void add_shares(int32_t expert, double sign);
  void set(int32_t slot, int32_t expert);

  LayerProblem problem_;
  std::vector<int32_t> slots_;                 ///< [num_slots]
  std::vector<std::vector<int32_t>> holders_;  ///< [num_experts] ranks
  std::vector<double> loads_;                  ///< [num_ranks]
  std::vector<uint8_t> holds_;                 ///< [num_ranks, num_experts]
  std::vector<uint8_t> held_;                  ///< the same at the start
  std::vector<int32_t> empty_at_start_;        ///< [num_ranks] slots
  std::vector<int32_t> empty_;                 ///< [num_ranks] slots
  std::vector<Change> changes_;
  std::vector<int32_t> moved_on_;  ///< [num_ranks] slots
  int32_t moved_ = 0;
};

}  // namespace switchyard::stats
