// What one layer could do about a placement in force, and which of all layers' options to take.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "stats/placement_state.h"

namespace switchyard::stats {

/// A placement within reach.
struct PlacementOption {
  int64_t moved_slots = 0;
  double time = 0.0;            ///< of the slowest rank
  std::size_t search = 0;       ///< whose changes lead there
  std::size_t num_changes = 0;  ///< the first so many of them
  bool from_nothing = false;    ///< the plan from nothing, instead
};

/// One layer's options: the first is to keep what is in force, each later one moves more slots and
/// takes less time.
struct LayerOptions {
  std::vector<PlacementOption> options;
  std::vector<std::vector<PlacementState::Change>> searches;
  double attainable_time = 0.0;       ///< if any number of slots moved
  std::vector<int32_t> from_nothing;  ///< [num_slots], slots matched to those in force

  /// [num_slots] with experts that stay on a rank in their slots.
  [[nodiscard]] std::vector<int32_t> slots_of(const PlacementOption& option,
                                              std::span<const int32_t> in_force,
                                              int32_t slots_per_rank) const;
};

/// @param in_force    [num_slots]
/// @param fresh       [num_slots] a plan from nothing.
/// @param most_moved  slots that an option may move.
/// @param likely      slots that there are for a layer on average: options are denser around it.
LayerOptions find_options(const LayerProblem& problem, std::span<const int32_t> in_force,
                          std::span<const int32_t> fresh, int64_t most_moved, double likely);

/// Adds options that move no more slots than this one and take less time.
void improve_option(const LayerProblem& problem, std::span<const int32_t> in_force,
                    std::size_t option, LayerOptions& layer);

/// Slots that hold another expert than before, or none any more.
int64_t count_moved(std::span<const int32_t> before, std::span<const int32_t> after);

/// An option for each layer: those that save most time in all for at most `most_moved` slots.
///
/// By the steepest gains first, then whatever still fits and gains most: never more slots than
/// allowed, and less than one layer's step from the best possible.
/// @param min_time_per_slot  [num_layers] gains below it are left out.
std::vector<std::size_t> choose_options(std::span<const LayerOptions> layers, int64_t most_moved,
                                        std::span<const double> min_time_per_slot);

}  // namespace switchyard::stats
