// Changes of a placement in force: within the budget, worth their cost, none for chance.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "bench/plain_placement.h"
#include "switchyard/placement_controller.h"
#include "tests/placement_loads.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"
#include "tests/sanitizers.h"

namespace switchyard::test {
namespace {

std::vector<ExpertPlacement> placements_of(const PlacementPlan& plan) {
  std::vector<ExpertPlacement> placements;
  for (const PlannedLayer& layer : plan.layers) placements.push_back(layer.placement);
  return placements;
}

double mean_before(const PlacementPlan& plan) {
  double sum = 0.0;
  for (const PlannedLayer& layer : plan.layers) sum += layer.max_over_mean_before;
  return sum / static_cast<double>(plan.layers.size());
}

double mean_after(const PlacementPlan& plan) {
  double sum = 0.0;
  for (const PlannedLayer& layer : plan.layers) sum += layer.max_over_mean;
  return sum / static_cast<double>(plan.layers.size());
}

int64_t differing_slots(const PlacementPlan& plan, const std::vector<ExpertPlacement>& before) {
  int64_t count = 0;
  for (size_t layer = 0; layer < before.size(); ++layer) {
    const auto was = before[layer].slot_to_expert();
    const auto is = plan.layers[layer].placement.slot_to_expert();
    for (size_t slot = 0; slot < was.size(); ++slot) count += was[slot] != is[slot] ? 1 : 0;
  }
  return count;
}

/// Without hysteresis: whatever gains is done.
MigrationPolicy eager(std::optional<int64_t> max_moved_slots = {}) {
  return {.max_moved_slots = max_moved_slots,
          .min_gain = 0.0,
          .min_gain_per_slot = 0.0,
          .samples_per_load = 0.0};
}

constexpr int64_t kLayers = 12;
const PlacementPlannerConfig kConfig{.num_experts = 256, .num_ranks = 32, .num_slots = 288};

TEST(PlacementReplan, MovesFewSlotsForAFreshSample) {
  for (const double assignments : {5e4, 1e6}) {
    const ExpertLoads truth = log_normal_loads(kLayers, 256, 0.8, 1);
    const ExpertLoads first = sample_of(truth, assignments, 2);
    const ExpertLoads second = sample_of(truth, assignments, 3);
    const auto in_force = placements_of(plan_placement(kConfig, first.view()));
    const PlacementPlan plan = replan_placement(kConfig, second.view(), in_force, {});
    EXPECT_LE(plan.moved_slots, kLayers * 288 * 2 / 100) << assignments;
    EXPECT_LE(mean_after(plan), mean_before(plan));
  }
}

/// Many small ranks take more moves: nearly every one is too slow after such a change.
TEST(PlacementReplan, GainsMostOfARealChangeWithFewMoves) {
  struct Expected {
    int32_t num_ranks;
    int32_t num_slots;
    double share;
  };
  for (const Expected& expected :
       {Expected{32, 256, 0.9}, {32, 288, 0.97}, {64, 320, 0.94}, {128, 384, 0.9}}) {
    const PlacementPlannerConfig config{
        .num_experts = 256, .num_ranks = expected.num_ranks, .num_slots = expected.num_slots};
    const auto in_force =
        placements_of(plan_placement(config, log_normal_loads(kLayers, 256, 0.8, 1).view()));
    const ExpertLoads now = log_normal_loads(kLayers, 256, 0.8, 99);
    const PlacementPlan best = plan_placement(config, now.view());
    const int64_t budget = kLayers * expected.num_slots / 10;
    const PlacementPlan plan =
        replan_placement(config, now.view(), in_force, {.max_moved_slots = budget});
    EXPECT_EQ(plan.verdict, PlacementVerdict::kChanged);
    EXPECT_LE(plan.moved_slots, budget);
    const double attainable = mean_before(plan) - mean_after(best);
    EXPECT_GE(mean_before(plan) - mean_after(plan), expected.share * attainable)
        << expected.num_ranks << " ranks, " << expected.num_slots << " slots";
  }
}

TEST(PlacementReplan, KeepsToTheBudgetExactly) {
  RandomStream random(8);
  for (int trial = 0; trial < sanitized_share(60); ++trial) {
    const auto num_ranks = static_cast<int32_t>(2 + random.below(7));
    const auto per_rank = static_cast<int32_t>(1 + random.below(6));
    const int32_t num_slots = num_ranks * per_rank;
    const auto num_experts =
        static_cast<int32_t>(std::max<int64_t>(per_rank, 1 + random.below(num_slots)));
    const PlacementPlannerConfig config{
        .num_experts = num_experts, .num_ranks = num_ranks, .num_slots = num_slots};
    const ExpertLoads old_loads = log_normal_loads(4, num_experts, 1.0, random.bits());
    const ExpertLoads new_loads = log_normal_loads(4, num_experts, 1.0, random.bits());
    const auto in_force = placements_of(plan_placement(config, old_loads.view()));
    double last = std::numeric_limits<double>::infinity();
    for (const int64_t budget : {0, 1, 2, 3, 5, 8, 1000}) {
      const PlacementPlan plan =
          replan_placement(config, new_loads.view(), in_force, eager(budget));
      EXPECT_LE(plan.moved_slots, budget);
      EXPECT_EQ(differing_slots(plan, in_force), plan.moved_slots);
      for (size_t layer = 0; layer < plan.layers.size(); ++layer) {
        const PlannedLayer& planned = plan.layers[layer];
        EXPECT_LE(planned.max_over_mean, planned.max_over_mean_before * (1.0 + 1e-12));
        EXPECT_EQ(bench::count_twins(planned.placement.slot_to_expert(), num_ranks), 0);
        EXPECT_EQ(planned.moved_slots, moved_slots(in_force[layer], planned.placement));
      }
      EXPECT_TRUE(budget > 0 || placements_of(plan) == in_force);
      if (budget <= 1 || budget == 1000) {
        EXPECT_LE(mean_after(plan), last * (1.0 + 1e-9));
        last = mean_after(plan);
      }
    }
  }
}

/// Ranks of different speed, whose slots may end empty, nodes, and second copies in force.
TEST(PlacementReplan, KeepsToTheBudgetWhateverIsInForce) {
  RandomStream random(12);
  for (int trial = 0; trial < 36; ++trial) {
    PlacementPlannerConfig config{.num_experts = 32, .num_ranks = 8, .num_slots = 48};
    if (trial % 3 == 0) config.rank_speeds = {0.5, 0.7, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0};
    if (trial % 2 == 0) {
      config.num_nodes = 2;
      config.num_groups = 4;
    } else {
      config.may_repeat_on_rank = true;
    }
    const ExpertLoads old_loads = log_normal_loads(2, 32, 1.2, random.bits());
    const ExpertLoads new_loads = log_normal_loads(2, 32, 1.2, random.bits());
    const auto in_force = placements_of(plan_placement(config, old_loads.view()));
    config.may_repeat_on_rank = false;
    const PlacementPlan plan = replan_placement(config, new_loads.view(), in_force, eager(20));
    EXPECT_LE(plan.moved_slots, 20);
    EXPECT_EQ(differing_slots(plan, in_force), plan.moved_slots);
    EXPECT_LT(mean_after(plan), mean_before(plan));
    for (size_t layer = 0; layer < plan.layers.size(); ++layer) {
      const PlannedLayer& planned = plan.layers[layer];
      const VectorView<const double> loads{new_loads.view().row(static_cast<int64_t>(layer)), 32};
      EXPECT_NEAR(planned.max_over_mean,
                  max_over_mean(planned.placement, loads, config.rank_speeds), 1e-12);
    }
  }
}

/// The best that moving one or two slots gives, by trying all.
TEST(PlacementReplan, FindsTheBestSmallChangeByForce) {
  RandomStream random(31);
  int found = 0;
  constexpr int kTrials = sanitized_share(100);
  for (int trial = 0; trial < kTrials; ++trial) {
    const PlacementPlannerConfig config{.num_experts = 5, .num_ranks = 3, .num_slots = 6};
    const ExpertLoads old_loads = log_normal_loads(1, 5, 1.0, random.bits());
    const ExpertLoads new_loads = log_normal_loads(1, 5, 1.0, random.bits());
    const auto in_force = placements_of(plan_placement(config, old_loads.view()));
    const PlacementPlan plan = replan_placement(config, new_loads.view(), in_force, eager(2));
    double best = plan.layers[0].max_over_mean_before;
    const auto was = in_force[0].slot_to_expert();
    for (int code = 0; code < 6 * 6 * 6 * 6 * 6 * 6; ++code) {
      std::vector<int32_t> slots;
      for (int rest = code; slots.size() < 6; rest /= 6) slots.push_back(rest % 6 - 1);
      std::vector<int> copies(6);
      int moved = 0;
      for (size_t slot = 0; slot < 6; ++slot) {
        ++copies[static_cast<size_t>(int64_t{slots[slot]} + 1)];
        moved += slots[slot] != was[slot] ? 1 : 0;
      }
      if (moved > 2 || bench::count_twins(slots, 3) > 0) continue;
      if (std::count(copies.begin() + 1, copies.end(), 0) > 0) continue;
      best = std::min(best, bench::plain_max_over_mean(new_loads.values, slots, 3));
    }
    EXPECT_GE(plan.layers[0].max_over_mean, best * (1.0 - 1e-12));
    found += plan.layers[0].max_over_mean <= best * (1.0 + 1e-9) ? 1 : 0;
  }
  EXPECT_GE(found, kTrials * 70 / 100);
}

TEST(PlacementReplan, LeavesChangesThatDoNotPay) {
  const auto in_force =
      placements_of(plan_placement(kConfig, log_normal_loads(2, 256, 0.8, 1).view()));
  const ExpertLoads now = log_normal_loads(2, 256, 0.8, 99);
  MigrationPolicy policy{.bytes_per_slot = 44'000'000,
                         .bandwidth_gbps = 50.0,
                         .pause_seconds = 5.0,
                         .seconds_per_load = 1e-6,
                         .times_repeated = 10.0};
  PlacementPlan plan = replan_placement(kConfig, now.view(), in_force, policy);
  EXPECT_EQ(plan.verdict, PlacementVerdict::kNotWorthCost);
  EXPECT_EQ(placements_of(plan), in_force);
  EXPECT_EQ(plan.moved_slots, 0);
  EXPECT_TRUE(plan.moves.empty());
  EXPECT_GT(plan.cost_seconds, 5.0);
  EXPECT_LT(plan.gain_seconds, plan.cost_seconds);
  policy.times_repeated = 1e4;
  plan = replan_placement(kConfig, now.view(), in_force, policy);
  EXPECT_EQ(plan.verdict, PlacementVerdict::kChanged);
  EXPECT_GT(plan.gain_seconds, plan.cost_seconds);
  EXPECT_GE(plan.moves.size(), static_cast<size_t>(plan.moved_slots));
}

TEST(PlacementReplan, MovesLessWhereMovesAreDear) {
  const auto in_force =
      placements_of(plan_placement(kConfig, log_normal_loads(2, 256, 0.8, 1).view()));
  const ExpertLoads now = log_normal_loads(2, 256, 0.8, 99);
  int64_t last = std::numeric_limits<int64_t>::max();
  for (const int64_t bytes : {1'000'000, 100'000'000, 1'000'000'000}) {
    const PlacementPlan plan = replan_placement(kConfig, now.view(), in_force,
                                                {.min_gain_per_slot = 0.0,
                                                 .bytes_per_slot = bytes,
                                                 .bandwidth_gbps = 50.0,
                                                 .seconds_per_load = 1e-6,
                                                 .times_repeated = 100.0});
    EXPECT_LT(plan.moved_slots, last);
    last = plan.moved_slots;
  }
}

TEST(PlacementReplan, StaysWithinNodesInAHierarchy) {
  PlacementPlannerConfig config = kConfig;
  config.num_nodes = 4;
  config.num_groups = 8;
  const auto in_force =
      placements_of(plan_placement(config, log_normal_loads(3, 256, 0.8, 1).view()));
  const PlacementPlan plan = replan_placement(config, log_normal_loads(3, 256, 0.8, 99).view(),
                                              in_force, {.max_moved_slots = 60});
  EXPECT_GT(plan.moved_slots, 0);
  for (const PlannedLayer& layer : plan.layers) {
    for (int32_t group = 0; group < 8; ++group) {
      int32_t node = -1;
      for (int32_t slot = 0; slot < 288; ++slot) {
        const int32_t expert = layer.placement.slot_to_expert()[static_cast<size_t>(slot)];
        if (expert < 0 || expert / 32 != group) continue;
        EXPECT_TRUE(node < 0 || node == slot / 72);
        node = slot / 72;
      }
    }
  }
}

TEST(PlacementReplan, GivesTheSameBitsForAnyNumberOfThreads) {
  const auto in_force =
      placements_of(plan_placement(kConfig, log_normal_loads(kLayers, 256, 0.8, 1).view()));
  const ExpertLoads now = log_normal_loads(kLayers, 256, 0.8, 99);
  PlacementPlannerConfig config = kConfig;
  config.num_threads = 1;
  const PlacementPlan alone =
      replan_placement(config, now.view(), in_force, {.max_moved_slots = 200});
  for (const int32_t num_threads : {2, 5}) {
    config.num_threads = num_threads;
    const PlacementPlan together =
        replan_placement(config, now.view(), in_force, {.max_moved_slots = 200});
    EXPECT_EQ(placements_of(alone), placements_of(together));
    EXPECT_EQ(alone.moves, together.moves);
  }
}

/// A placement by others may hold an expert twice on a rank; the second copy's slot is free.
TEST(PlacementReplan, UsesSlotsOfSecondCopies) {
  const PlacementPlannerConfig config{.num_experts = 3, .num_ranks = 2, .num_slots = 4};
  const std::vector<int32_t> slots{0, 0, 1, 2};
  const std::vector<ExpertPlacement> in_force{ExpertPlacement::from_slots(3, 2, slots)};
  const std::vector<double> loads{2.0, 9.0, 7.0};
  const PlacementPlan one = replan_placement(config, {loads.data(), 1, 3}, in_force, eager(1));
  EXPECT_EQ(one.moved_slots, 1);
  EXPECT_NEAR(one.layers[0].max_over_mean, 11.5 / 9.0, 1e-12);
  const PlacementPlan two = replan_placement(config, {loads.data(), 1, 3}, in_force, eager(2));
  EXPECT_EQ(two.moved_slots, 2);
  EXPECT_NEAR(two.layers[0].max_over_mean, 1.0, 1e-12);
  const PlacementPlan kept = replan_placement(config, {loads.data(), 1, 3}, in_force, eager(0));
  EXPECT_EQ(placements_of(kept), in_force);
}

/// Where copies on one rank are allowed and good, they stay.
TEST(PlacementReplan, KeepsCopiesOnOneRankWhereTheyAreAllowed) {
  PlacementPlannerConfig config{.num_experts = 8, .num_ranks = 2, .num_slots = 10};
  config.may_repeat_on_rank = true;
  RandomStream random(23);
  int kept = 0;
  for (int trial = 0; trial < 100; ++trial) {
    const ExpertLoads loads = log_normal_loads(1, 8, 1.6, random.bits());
    const auto in_force = placements_of(plan_placement(config, loads.view()));
    if (bench::count_twins(in_force[0].slot_to_expert(), 2) == 0) continue;
    const PlacementPlan plan = replan_placement(config, loads.view(), in_force, {});
    EXPECT_EQ(placements_of(plan), in_force);
    ++kept;
  }
  EXPECT_GT(kept, 0);
}

TEST(PlacementReplan, RefusesByNameAndValue) {
  const PlacementPlannerConfig config{.num_experts = 4, .num_ranks = 2, .num_slots = 4};
  const std::vector<double> loads{1, 2, 3, 4};
  const std::vector<ExpertPlacement> good{ExpertPlacement::contiguous(4, 2)};
  const auto message_of = [&](const std::vector<ExpertPlacement>& in_force,
                              const MigrationPolicy& policy) {
    return refusal([&] { replan_placement(config, {loads.data(), 1, 4}, in_force, policy); });
  };
  EXPECT_EQ(message_of({}, {}), "in_force has 0 layers, loads has 1");
  EXPECT_EQ(message_of({ExpertPlacement::contiguous(5, 2)}, {}),
            "in_force[0] has 5 experts, must have 4");
  EXPECT_EQ(message_of({ExpertPlacement::contiguous(4, 4)}, {}),
            "in_force[0] has 4 ranks, must have 2");
  const std::vector<int32_t> six{0, 1, 2, 3, 0, 1};
  EXPECT_EQ(message_of({ExpertPlacement::from_slots(4, 2, six)}, {}),
            "in_force[0] has 6 slots, must have 4");
  const std::vector<ExpertReplica> uneven{{0, 0}, {1, 0}, {2, 0}, {3, 1}};
  EXPECT_EQ(message_of({ExpertPlacement::from_replicas(4, 2, uneven)}, {}),
            "in_force[0] has 3 slots on rank 0, must have 2 on each");
  EXPECT_EQ(message_of(good, {.max_moved_slots = -1}), "max_moved_slots is -1, must be 0 or more");
  EXPECT_NE(message_of(good, {.min_gain = std::nan("")}).find("min_gain is nan"),
            std::string::npos);
  EXPECT_NE(message_of(good, {.bytes_per_slot = -1}).find("bytes_per_slot is -1"),
            std::string::npos);
  EXPECT_NE(message_of(good, {.bandwidth_gbps = -1}).find("bandwidth_gbps is -1"),
            std::string::npos);
}

TEST(PlacementController, FollowsLoadsThatFade) {
  PlacementController controller({.planner = {.num_experts = 4, .num_ranks = 2, .num_slots = 6},
                                  .policy = {.min_gain_per_slot = 0.0},
                                  .num_layers = 2,
                                  .decay = 0.5});
  EXPECT_EQ(controller.in_force().size(), 2u);
  const std::vector<int64_t> first{1000, 10, 10, 10};
  controller.record(0, {first.data(), 4});
  controller.record(0, {first.data(), 4});
  EXPECT_EQ(controller.loads().row(0)[0], 0.0);
  controller.end_window();
  EXPECT_EQ(controller.loads().row(0)[0], 2000.0);
  EXPECT_EQ(controller.loads().row(1)[0], 0.0);
  controller.end_window();
  EXPECT_EQ(controller.loads().row(0)[0], 1000.0);
  controller.record(1, {first.data(), 4});
  controller.end_window();
  const PlacementPlan plan = controller.replan();
  EXPECT_LE(plan.layers[0].max_over_mean, plan.layers[0].max_over_mean_before);
  controller.adopt(placements_of(plan));
  EXPECT_EQ(controller.in_force(), placements_of(plan));
  EXPECT_EQ(controller.replan().moved_slots, 0);
}

TEST(PlacementController, StartsWithEveryExpertOnceAndNoTwins) {
  RandomStream random(2);
  for (int trial = 0; trial < 200; ++trial) {
    const auto num_ranks = static_cast<int32_t>(1 + random.below(9));
    const auto per_rank = static_cast<int32_t>(1 + random.below(9));
    const auto num_experts = static_cast<int32_t>(1 + random.below(num_ranks * per_rank));
    const ExpertPlacement placement = initial_placement(
        {.num_experts = num_experts, .num_ranks = num_ranks, .num_slots = num_ranks * per_rank});
    EXPECT_EQ(bench::count_twins(placement.slot_to_expert(), num_ranks), 0);
  }
}

TEST(PlacementController, RefusesAndStaysAsItWas) {
  PlacementController controller(
      {.planner = {.num_experts = 2, .num_ranks = 2, .num_slots = 2}, .num_layers = 1});
  const std::vector<int64_t> bad{5, -1};
  EXPECT_EQ(refusal([&] {
              controller.record(0, {bad.data(), 2});
            }),
            "tokens_per_expert[1] is -1, must be 0 or more");
  EXPECT_EQ(refusal([&] {
              controller.record(1, {bad.data(), 2});
            }),
            "layer is 1, must be in [0, 0]");
  EXPECT_EQ(refusal([&] {
              controller.record(0, {bad.data(), 1});
            }),
            "tokens_per_expert has 1 elements, must have 2");
  controller.end_window();
  EXPECT_EQ(controller.loads().row(0)[0], 0.0);
  EXPECT_EQ(refusal([&] { controller.adopt({}); }), "in_force has 0 layers, loads has 1");
  EXPECT_EQ(controller.in_force().size(), 1u);
  EXPECT_EQ(
      refusal([] {
        PlacementController wrong({.planner = {.num_experts = 2, .num_ranks = 2, .num_slots = 2},
                                   .num_layers = 1,
                                   .decay = 1.0});
      }),
      "decay is 1, must be in [0, 1)");
  EXPECT_EQ(
      refusal([] {
        PlacementController wrong({.planner = {.num_experts = 2, .num_ranks = 2, .num_slots = 2}});
      }),
      "num_layers is 0, must be in [1, 65536]");
}

}  // namespace
}  // namespace switchyard::test
