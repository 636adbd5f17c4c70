// The options that say on what to place experts and what moving them may cost, shared by the
// subcommands that do.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/placement_planner.h"
#include "tools/link_options.h"

namespace switchyard::tools {

class PlacementOptions {
 public:
  /// Adds the options to a subcommand; this object must outlive its parsing.
  /// @param us_per_token  default of --us-per-token, 0: unknown.
  /// @param repeats       default of --repeats.
  void add_to(CLI::App& command, double us_per_token, double repeats);

  /// @param num_experts      of the loads.
  /// @param slots_if_unsaid  without --slots; 0: as few as will do.
  /// @throws InvalidArgument  naming the option, its value and the limit.
  [[nodiscard]] PlacementPlannerConfig planner(int32_t num_experts, int64_t slots_if_unsaid,
                                               int num_threads) const;
  /// Without --max-moves.
  /// @throws InvalidArgument  as planner().
  [[nodiscard]] MigrationPolicy policy() const;

  [[nodiscard]] int32_t num_ranks() const { return static_cast<int32_t>(ranks_); }
  [[nodiscard]] int32_t num_nodes() const { return static_cast<int32_t>(nodes_); }
  [[nodiscard]] Links links() const;

 private:
  int64_t ranks_ = 0;
  int64_t nodes_ = 1;
  std::optional<int64_t> slots_;
  int64_t groups_ = 1;
  bool hierarchical_ = false;
  bool global_ = false;
  bool repeat_on_rank_ = false;
  std::vector<double> speeds_;
  MigrationPolicy policy_{.bytes_per_slot = 44'040'192};
  double us_per_token_ = 0.0;
  LinkOptions links_;
};

/// @throws InvalidArgument  unless low <= value <= high, naming the option.
void check_range(const char* name, int64_t value, int64_t low, int64_t high);

}  // namespace switchyard::tools
