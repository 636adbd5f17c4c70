// Placement beside the algorithm that serving engines use: time, balance, and what a change moves.
//
// Loads are log-normal, 58 layers of 256 experts; sigma says how skewed. Every plan that is timed
// is checked: no copy twice on a rank, and no layer worse than the plain algorithm's.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/median.h"
#include "bench/median_table.h"
#include "bench/plain_placement.h"
#include "switchyard/placement_planner.h"
#include "tests/placement_loads.h"
#include "tests/random_stream.h"

namespace switchyard::bench {
namespace {

using test::ExpertLoads;

constexpr int32_t kExperts = 256;
constexpr int64_t kLayers = 58;

struct Deployment {
  int32_t num_ranks;
  int32_t num_slots;
};
constexpr Deployment kDeployments[] = {{32, 288}, {64, 320}, {128, 384}, {32, 256}};
constexpr double kSigmas[] = {0.5, 0.7, 1.0};

std::string name_of(const char* what, const Deployment& deployment, double sigma) {
  return std::string(what) + "/" + std::to_string(deployment.num_ranks) + "/" +
         std::to_string(deployment.num_slots) + "/" + std::to_string(sigma);
}

PlacementPlannerConfig config_of(const Deployment& deployment, int32_t num_threads = 0) {
  return {.num_experts = kExperts,
          .num_ranks = deployment.num_ranks,
          .num_slots = deployment.num_slots,
          .num_threads = num_threads};
}

struct Balance {
  double mean = 0.0;
  double worst = 0.0;
  int64_t twins = 0;

  void add(double ratio) {
    mean += ratio / static_cast<double>(kLayers);
    worst = std::max(worst, ratio);
  }
};

Balance plain_balance(const ExpertLoads& loads, const Deployment& deployment) {
  Balance balance;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const auto slots =
        place_plainly(loads.layer(layer), deployment.num_ranks, deployment.num_slots);
    balance.add(plain_max_over_mean(loads.layer(layer), slots, deployment.num_ranks));
    balance.twins += count_twins(slots, deployment.num_ranks);
  }
  return balance;
}

/// Refuses a plan that no one should want.
Balance checked_balance(const PlacementPlan& plan, const ExpertLoads& loads,
                        const Deployment& deployment) {
  Balance balance;
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const auto slots = plan.layers[static_cast<std::size_t>(layer)].placement.slot_to_expert();
    const double ratio = plain_max_over_mean(loads.layer(layer), slots, deployment.num_ranks);
    const auto plain =
        place_plainly(loads.layer(layer), deployment.num_ranks, deployment.num_slots);
    if (ratio >
        plain_max_over_mean(loads.layer(layer), plain, deployment.num_ranks) * (1.0 + 1e-12)) {
      throw std::logic_error("layer " + std::to_string(layer) + " is worse than the plain one");
    }
    balance.add(ratio);
    balance.twins += count_twins(slots, deployment.num_ranks);
  }
  if (balance.twins > 0) throw std::logic_error("a rank holds an expert twice");
  return balance;
}

void register_all() {
  for (const Deployment& deployment : kDeployments) {
    for (const double sigma : kSigmas) {
      const ExpertLoads loads = test::log_normal_loads(kLayers, kExperts, sigma, 7);
      benchmark::RegisterBenchmark(
          name_of("plain", deployment, sigma).c_str(),
          [=](benchmark::State& state) {
            for (auto _ : state) {
              for (int64_t layer = 0; layer < kLayers; ++layer) {
                benchmark::DoNotOptimize(
                    place_plainly(loads.layer(layer), deployment.num_ranks, deployment.num_slots));
              }
            }
          })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
      for (const int32_t num_threads : {1, 2}) {
        const std::string what = "planned" + std::to_string(num_threads);
        benchmark::RegisterBenchmark(name_of(what.c_str(), deployment, sigma).c_str(),
                                     [=](benchmark::State& state) {
                                       const PlacementPlannerConfig config =
                                           config_of(deployment, num_threads);
                                       PlacementPlan plan;
                                       for (auto _ : state)
                                         plan = plan_placement(config, loads.view());
                                       checked_balance(plan, loads, deployment);
                                     })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
}

void print_plans(const MedianReporter& medians) {
  std::puts("### From nothing\n");
  std::puts(
      "| ranks/slots | sigma | plain: mean | worst | twins | here: mean | worst | plain, CPU ms | "
      "here, CPU ms | 2 threads, ms |\n|---|---|---|---|---|---|---|---|---|---|");
  for (const Deployment& deployment : kDeployments) {
    for (const double sigma : kSigmas) {
      const ExpertLoads loads = test::log_normal_loads(kLayers, kExperts, sigma, 7);
      const Balance plain = plain_balance(loads, deployment);
      const Balance here =
          checked_balance(plan_placement(config_of(deployment), loads.view()), loads, deployment);
      const auto cpu_ms = [&](const char* what) {
        return medians.processor_nanoseconds(name_of(what, deployment, sigma)) * 1e-6;
      };
      std::printf("| %d/%d | %.1f | %.4f | %.4f | %lld | %.5f | %.5f | %.1f | %.1f | %.1f |\n",
                  deployment.num_ranks, deployment.num_slots, sigma, plain.mean, plain.worst,
                  static_cast<long long>(plain.twins), here.mean, here.worst, cpu_ms("plain"),
                  cpu_ms("planned1"),
                  medians.nanoseconds(name_of("planned2", deployment, sigma)) * 1e-6);
    }
  }
}

/// Shapes by chance, one layer each: who is better, without and with copies on one rank.
void print_random_shapes() {
  struct Count {
    int64_t worse = 0;
    int64_t better = 0;
    double most_worse = 0.0;
    int64_t twins = 0;

    void add(const PlannedLayer& layer, double plain, int32_t num_ranks) {
      const double excess = layer.max_over_mean / plain - 1.0;
      worse += excess > 1e-12 ? 1 : 0;
      better += excess < -1e-12 ? 1 : 0;
      most_worse = std::max(most_worse, excess);
      twins += count_twins(layer.placement.slot_to_expert(), num_ranks);
    }
  };
  Count without;
  Count with;
  int64_t num_shapes = 0;
  int64_t plain_twins = 0;
  test::RandomStream random(11);
  for (int trial = 0; trial < 6000; ++trial) {
    const std::optional<test::RandomLayer> layer = test::random_layer(random);
    if (!layer) continue;
    const ExpertLoads& loads = layer->loads;
    PlacementPlannerConfig config = layer->config;
    const int32_t num_ranks = config.num_ranks;
    const auto plain_slots = place_plainly(loads.values, num_ranks, config.num_slots);
    const double plain = plain_max_over_mean(loads.values, plain_slots, num_ranks);
    plain_twins += count_twins(plain_slots, num_ranks);
    without.add(plan_placement(config, loads.view()).layers[0], plain, num_ranks);
    config.may_repeat_on_rank = true;
    with.add(plan_placement(config, loads.view()).layers[0], plain, num_ranks);
    ++num_shapes;
  }
  if (with.worse > 0 || without.twins > 0) throw std::logic_error("not what was promised");
  std::printf(
      "\n### %lld random shapes\n\n8 to 256 experts, 2 to 64 ranks, sigma 0.2 to 1.7; the plain "
      "algorithm puts %lld copies beside another.\n\n"
      "| copies on one rank | worse than plain | by at most | better | copies beside another |\n"
      "|---|---|---|---|---|\n",
      static_cast<long long>(num_shapes), static_cast<long long>(plain_twins));
  const auto print = [](const char* name, const Count& count) {
    std::printf("| %s | %lld | %.2f %% | %lld | %lld |\n", name,
                static_cast<long long>(count.worse), 100.0 * count.most_worse,
                static_cast<long long>(count.better), static_cast<long long>(count.twins));
  };
  print("forbidden", without);
  print("allowed", with);
}

std::vector<ExpertPlacement> placements_of(const PlacementPlan& plan) {
  std::vector<ExpertPlacement> placements;
  for (const PlannedLayer& layer : plan.layers) placements.push_back(layer.placement);
  return placements;
}

double mean_of(const PlacementPlan& plan, double PlannedLayer::*ratio) {
  double sum = 0.0;
  for (const PlannedLayer& layer : plan.layers) sum += layer.*ratio;
  return sum / static_cast<double>(plan.layers.size());
}

/// A sample of 10^6 assignments a layer is planned for; then another of the same loads comes, then
/// one of loads that have nothing to do with them.
void print_changes() {
  std::puts(
      "\n### Planned again\n\n| ranks/slots | sigma | plain moves, fresh sample | here | before | "
      "after | new workload: before | after 10 % of slots | attainable | share of gain | one "
      "thread, ms |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|");
  for (const Deployment& deployment : kDeployments) {
    for (const double sigma : kSigmas) {
      const ExpertLoads truth = test::log_normal_loads(kLayers, kExperts, sigma, 1);
      const ExpertLoads first = test::sample_of(truth, 1e6, 2);
      const ExpertLoads second = test::sample_of(truth, 1e6, 3);
      const ExpertLoads other =
          test::sample_of(test::log_normal_loads(kLayers, kExperts, sigma, 99), 1e6, 4);
      const PlacementPlannerConfig config = config_of(deployment);
      const auto in_force = placements_of(plan_placement(config, first.view()));
      const auto slots = static_cast<double>(kLayers * deployment.num_slots);
      int64_t plain_moved = 0;
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        const auto was =
            place_plainly(first.layer(layer), deployment.num_ranks, deployment.num_slots);
        const auto is =
            place_plainly(second.layer(layer), deployment.num_ranks, deployment.num_slots);
        for (std::size_t slot = 0; slot < is.size(); ++slot) {
          plain_moved += was[slot] != is[slot] ? 1 : 0;
        }
      }
      const PlacementPlan fresh = replan_placement(config, second.view(), in_force, {});
      const int64_t budget = kLayers * deployment.num_slots / 10;
      PlacementPlan changed;
      std::vector<double> milliseconds(3);
      for (double& ms : milliseconds) {
        const auto start = std::chrono::steady_clock::now();
        changed = replan_placement(config_of(deployment, 1), other.view(), in_force,
                                   {.max_moved_slots = budget});
        ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                 .count();
      }
      if (changed.moved_slots > budget) throw std::logic_error("more moves than allowed");
      const double attainable =
          mean_of(plan_placement(config, other.view()), &PlannedLayer::max_over_mean);
      const double before = mean_of(changed, &PlannedLayer::max_over_mean_before);
      const double after = mean_of(changed, &PlannedLayer::max_over_mean);
      std::printf(
          "| %d/%d | %.1f | %.1f %% | %.2f %% | %.4f | %.4f | %.3f | %.3f | %.3f | %.1f %% | %.0f "
          "|\n",
          deployment.num_ranks, deployment.num_slots, sigma,
          100.0 * static_cast<double>(plain_moved) / slots,
          100.0 * static_cast<double>(fresh.moved_slots) / slots,
          mean_of(fresh, &PlannedLayer::max_over_mean_before),
          mean_of(fresh, &PlannedLayer::max_over_mean), before, after, attainable,
          100.0 * (before - after) / (before - attainable), median(milliseconds));
    }
  }
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  using namespace switchyard::bench;
  register_all();
  return run_or_tabulate(argc, argv, 11, [](const MedianReporter& medians) {
    print_plans(medians);
    print_random_shapes();
    print_changes();
  });
}
