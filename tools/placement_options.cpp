#include "tools/placement_options.h"

#include "switchyard/errors.h"

namespace switchyard::tools {

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw InvalidArgument(std::string(name) + " is " + std::to_string(value) + ", must be in [" +
                          std::to_string(low) + ", " + std::to_string(high) + "]");
  }
}

namespace {

constexpr int64_t kMaxRanks = 4096;

void check_divides(const char* name, int64_t value, const char* by, int64_t divisor) {
  if (value % divisor == 0) return;
  throw InvalidArgument(std::string(name) + " is " + std::to_string(value) +
                        ", must be a multiple of " + by + ", " + std::to_string(divisor));
}

}  // namespace

void PlacementOptions::add_to(CLI::App& command, double us_per_token, double repeats) {
  us_per_token_ = us_per_token;
  policy_.times_repeated = repeats;
  command.add_option("--ranks", ranks_, "Ranks, up to 4096")->required()->type_name("R");
  command.add_option("--nodes", nodes_, "Nodes that they are spread over, default 1")
      ->type_name("N");
  command.add_option("--slots", slots_, "Slots for copies of experts on all ranks together")
      ->type_name("S");
  command.add_option("--groups", groups_, "Groups of consecutive experts, default 1")
      ->type_name("G");
  CLI::Option* hierarchical = command.add_flag(
      "--hierarchical", hierarchical_,
      "Keep groups, or without groups every expert's copies, in one node; the default where "
      "groups divide by several nodes");
  command.add_flag("--global", global_, "Any expert on any rank")->excludes(hierarchical);
  command.add_option("--speeds", speeds_, "Speed of each rank, 1,1,0.5,…; default: all alike")
      ->delimiter(',')
      ->type_name("X,…");
  command.add_flag("--repeat-on-rank", repeat_on_rank_,
                   "Let a rank hold several copies of an expert where nothing else balances as "
                   "well as EPLB");
  const std::string costs = "Costs of moves";
  command
      .add_option("--expert-bytes", policy_.bytes_per_slot,
                  "Bytes of an expert's weights, default 44040192: DeepSeek-V3's in FP8")
      ->type_name("N")
      ->group(costs);
  command
      .add_option("--us-per-token", us_per_token_,
                  "Time of an expert for one of its tokens, 0: unknown")
      ->capture_default_str()
      ->type_name("US")
      ->group(costs);
  command
      .add_option("--repeats", policy_.times_repeated,
                  "How often loads like these come while the placement holds")
      ->capture_default_str()
      ->type_name("N")
      ->group(costs);
  command.add_option("--pause", policy_.pause_seconds, "Seconds that any change costs, default 0")
      ->type_name("S")
      ->group(costs);
  command
      .add_option("--min-gain", policy_.min_gain,
                  "Leave layers alone whose max/mean could fall by less, default 0.02")
      ->type_name("X")
      ->group(costs);
  command
      .add_option("--min-gain-per-slot", policy_.min_gain_per_slot,
                  "Leave moves out that gain less a slot, default 0.001")
      ->type_name("X")
      ->group(costs);
  command
      .add_option("--samples-per-load", policy_.samples_per_load,
                  "Assignments that a unit of load stands for, 0: loads are exact; default 1 for "
                  "whole numbers, else 0")
      ->type_name("X")
      ->group(costs);
  links_.add_to(command);
}

PlacementPlannerConfig PlacementOptions::planner(int32_t num_experts, int64_t slots_if_unsaid,
                                                 int num_threads) const {
  check_range("--ranks", ranks_, 1, kMaxRanks);
  check_range("--nodes", nodes_, 1, ranks_);
  check_divides("--ranks", ranks_, "--nodes", nodes_);
  const int64_t fewest = (num_experts + ranks_ - 1) / ranks_ * ranks_;
  const int64_t slots = slots_.value_or(slots_if_unsaid > 0 ? slots_if_unsaid : fewest);
  check_range("--slots", slots, num_experts, kMaxPlacementSlots);
  check_divides("--slots", slots, "--ranks", ranks_);
  check_range("--groups", groups_, 1, num_experts);
  check_divides("the number of experts", num_experts, "--groups", groups_);
  PlacementPlannerConfig config{.num_experts = num_experts,
                                .num_ranks = static_cast<int32_t>(ranks_),
                                .num_slots = static_cast<int32_t>(slots),
                                .num_nodes = static_cast<int32_t>(nodes_),
                                .num_groups = static_cast<int32_t>(groups_),
                                .rank_speeds = speeds_,
                                .may_repeat_on_rank = repeat_on_rank_,
                                .num_threads = num_threads};
  if (hierarchical_) config.scope = PlacementScope::kHierarchical;
  if (global_) config.scope = PlacementScope::kGlobal;
  validate(config);
  return config;
}

MigrationPolicy PlacementOptions::policy() const {
  MigrationPolicy policy = policy_;
  policy.seconds_per_load = us_per_token_ * 1e-6;
  const ExchangeCostModel model = links().model();
  policy.bandwidth_gbps = nodes_ > 1 ? model.network.bandwidth_gbps : model.node.bandwidth_gbps;
  validate(policy);
  return policy;
}

Links PlacementOptions::links() const {
  return links_.links(static_cast<int32_t>(ranks_ / nodes_));
}

}  // namespace switchyard::tools
