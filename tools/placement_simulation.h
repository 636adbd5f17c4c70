// Placement over time: what each policy makes of loads that change.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "switchyard/placement_planner.h"
#include "tools/link_options.h"
#include "tools/load_windows.h"

namespace switchyard::tools {

/// All start with a plan for the first window.
enum class SimulatedPolicy : uint8_t {
  kNone,      ///< and keep it
  kPeriodic,  ///< and plan from nothing every so many windows
  kBudgeted,  ///< and change it after any window where that pays, within a budget of moves
};

const char* name_of(SimulatedPolicy policy);
/// @throws InvalidArgument  for another name.
SimulatedPolicy parse_simulated_policy(const std::string& name);

struct SimulationConfig {
  PlacementPlannerConfig planner{};
  MigrationPolicy policy{};  ///< max_moved_slots is for one change
  int64_t period = 5;        ///< windows between plans from nothing
  double decay = 0.5;        ///< of the loads that kBudgeted plans from
  Links links{};
  int64_t row_bytes = 0;  ///< of a token on its way to its expert, and back
};

/// One window under one policy.
struct SimulatedWindow {
  SimulatedPolicy policy = SimulatedPolicy::kNone;
  int64_t window = 0;                ///< from 1: the first is planned for
  double mean_max_over_mean = 1.0;   ///< over the layers
  double worst_max_over_mean = 1.0;  ///< of any layer
  double worst_rank_load = 0.0;      ///< assignments of the busiest rank of any layer
  int64_t moved_slots = 0;           ///< before the window, after the one before
  int64_t moved_bytes = 0;
  int64_t dispatch_bytes = 0;     ///< that leave their rank, one way
  double plan_seconds = 0.0;      ///< that planning took this program before the window
  double compute_seconds = 0.0;   ///< sum over the layers of the slowest rank's time
  double exchange_seconds = 0.0;  ///< predicted, both ways, tokens starting evenly on all ranks
  double move_seconds = 0.0;      ///< of the moves, and the pause they cost

  [[nodiscard]] double seconds() const { return compute_seconds + exchange_seconds + move_seconds; }
};

/// Plays all windows but the first, telling `observe` of each as soon as it is over.
/// @throws InvalidArgument  when the config is refused.
std::vector<SimulatedWindow> simulate_placement(
    const SimulationConfig& config, const LoadWindows& windows, SimulatedPolicy policy,
    const std::function<void(const SimulatedWindow&)>& observe);

}  // namespace switchyard::tools
