// Local search over whole placements of a layer: swaps between ranks, and slots that change hands
// from a copy of one expert to a copy of another, whatever makes the slowest rank faster.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stats/placement_state.h"

namespace switchyard::stats {

/// Searches from a placement on. Each step makes the slowest rank faster and no other as slow as it
/// was, so the search ends.
class PlacementSearch {
 public:
  /// @param slot_to_expert  a second copy of an expert on a rank counts as an empty slot.
  PlacementSearch(const LayerProblem& problem, std::span<const int32_t> slot_to_expert)
      : state_(problem, slot_to_expert) {}

  /// Takes the step that gains most for each slot that it moves.
  /// @return whether there is one.
  bool step();

  /// Load over speed of the slowest rank.
  [[nodiscard]] double longest_time() const { return state_.time_of(state_.slowest_rank()); }
  [[nodiscard]] const PlacementState& state() const { return state_; }

 private:
  struct Step {
    double score = 0.0;   ///< gain for each moved slot
    int32_t slot = -1;    ///< gets `expert`, or what is in `other`
    int32_t other = -1;   ///< a slot to swap with, perhaps an empty one
    int32_t expert = -1;  ///< -1: none
  };
  [[nodiscard]] double time_without(int32_t expert, int32_t rank, int32_t slowest) const;
  static void offer(Step& best, double limit, double time, int32_t moves, const Step& step);
  void consider_swaps(int32_t slowest, Step& best) const;
  void consider_replacements(int32_t slowest, Step& best) const;
  void consider_copies(int32_t slowest, Step& best) const;

  PlacementState state_;
};

}  // namespace switchyard::stats
