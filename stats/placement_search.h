// Local search over whole placements of a layer: swaps between ranks, and slots that change hands
// from a copy of one expert to a copy of another. Counts what each step moves.
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
  int32_t ranks_per_node = 0;    ///< where experts stay in their node, else 0
  bool may_drop_copies = false;  ///< whether a search may empty slots

  [[nodiscard]] int32_t num_experts() const { return static_cast<int32_t>(loads.size()); }
  [[nodiscard]] int32_t num_ranks() const { return static_cast<int32_t>(speeds.size()); }
};

/// Load over speed of the slowest rank when copies share their expert's load evenly.
/// @param slot_to_expert  [num_ranks * slots_per_rank], -1 an empty slot.
double longest_time(const LayerProblem& problem, std::span<const int32_t> slot_to_expert);

/// What longest_time() cannot go below.
double mean_time(const LayerProblem& problem);

/// Searches from a placement on. Each step makes the slowest rank faster and no other as slow as it
/// was, so the search ends.
class PlacementSearch {
 public:
  /// A slot that a step gave to an expert, or emptied: -1.
  struct Change {
    int32_t slot = 0;
    int32_t expert = 0;
  };

  /// @param slot_to_expert  a second copy of an expert on a rank counts as an empty slot.
  PlacementSearch(const LayerProblem& problem, std::span<const int32_t> slot_to_expert);

  /// Takes the step that gains most for each slot that it moves.
  /// @return whether there is one.
  bool step();

  /// Load over speed of the slowest rank.
  [[nodiscard]] double longest_time() const;
  /// Slots that differ from the start, experts that are back on their rank in their old slots.
  [[nodiscard]] int32_t moved() const { return moved_; }
  /// All changes so far.
  [[nodiscard]] const std::vector<Change>& changes() const { return changes_; }
  /// [num_ranks * slots_per_rank]
  [[nodiscard]] const std::vector<int32_t>& slot_to_expert() const { return slots_; }

 private:
  struct Step {
    double score = 0.0;   ///< gain for each moved slot
    int32_t slot = -1;    ///< gets `expert`, or what is in `other`
    int32_t other = -1;   ///< a slot to swap with, perhaps an empty one
    int32_t expert = -1;  ///< -1: none
  };
  [[nodiscard]] bool holds(int32_t rank, int32_t expert) const;
  [[nodiscard]] bool held(int32_t rank, int32_t expert) const;
  [[nodiscard]] double time_of(int32_t rank) const;
  [[nodiscard]] double share(int32_t expert) const;
  [[nodiscard]] double share_with(int32_t expert, int32_t more) const;
  [[nodiscard]] int32_t rank_of(int32_t slot) const { return slot / problem_.slots_per_rank; }
  [[nodiscard]] int32_t slowest_rank() const;
  [[nodiscard]] bool may_hold(int32_t rank, int32_t expert) const;
  [[nodiscard]] int32_t cost(int32_t rank, int32_t removed, int32_t added) const;
  [[nodiscard]] double time_without(int32_t expert, int32_t rank, int32_t slowest) const;
  void offer(Step& best, double limit, double time, int32_t moves, const Step& step) const;
  void consider_swaps(int32_t slowest, Step& best) const;
  void consider_replacements(int32_t slowest, Step& best) const;
  void consider_copies(int32_t slowest, Step& best) const;
  void change(int32_t slot, int32_t expert);
  void exchange(int32_t slot, int32_t other);

  LayerProblem problem_;
  std::vector<int32_t> slots_;                 ///< [num_slots]
  std::vector<std::vector<int32_t>> holders_;  ///< [num_experts] ranks
  std::vector<double> loads_;                  ///< [num_ranks]
  std::vector<uint8_t> holds_;                 ///< [num_ranks, num_experts]
  std::vector<uint8_t> held_;                  ///< the same at the start
  std::vector<int32_t> empty_at_start_;        ///< [num_ranks] slots
  std::vector<int32_t> empty_;                 ///< [num_ranks] slots
  std::vector<Change> changes_;
  int32_t moved_ = 0;
};

}  // namespace switchyard::stats
