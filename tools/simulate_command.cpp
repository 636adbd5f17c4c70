// `switchyard simulate`: placement over time under several policies, side by side.
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/errors.h"
#include "switchyard/output_file.h"
#include "tools/commands.h"
#include "tools/expert_loads.h"
#include "tools/format.h"
#include "tools/load_windows.h"
#include "tools/placement_options.h"
#include "tools/placement_simulation.h"
#include "tools/simulation_metrics.h"
#include "tools/simulation_report.h"
#include "tools/text_table.h"

namespace switchyard::tools {
namespace {

constexpr int64_t kMaxRanks = 512;  // the cost model takes the square
constexpr int64_t kMaxRowBytes = 1 << 24;
/// An expert of DeepSeek-V3 on a GPU that does 350 Tflop/s.
constexpr double kUsPerToken = 0.25;
constexpr double kRepeats = 10.0;

struct SimulateOptions {
  std::string loads;
  std::vector<std::string> policies{"none", "periodic", "budgeted"};
  std::optional<int64_t> max_moves;
  int64_t period = 5;
  double decay = 0.5;
  int64_t row_bytes = 7168;
  std::string report;
  std::string metrics_address;
  std::optional<double> metrics_seconds;
  bool json = false;
  LoadWindowOptions windows;
  PlacementOptions placement;
  RoutingOptions routing;
};

/// All windows of one policy together.
struct PolicySummary {
  SimulatedPolicy policy = SimulatedPolicy::kNone;
  std::vector<SimulatedWindow> windows{};
  SimulatedWindow total{};  ///< sums, means and worst
  int64_t num_changes = 0;
};

PolicySummary summarize(SimulatedPolicy policy, std::vector<SimulatedWindow> windows) {
  PolicySummary summary{.policy = policy, .windows = std::move(windows)};
  SimulatedWindow& total = summary.total;
  total.mean_max_over_mean = 0.0;
  for (const SimulatedWindow& window : summary.windows) {
    total.mean_max_over_mean +=
        window.mean_max_over_mean / static_cast<double>(summary.windows.size());
    total.worst_max_over_mean = std::max(total.worst_max_over_mean, window.worst_max_over_mean);
    total.worst_rank_load = std::max(total.worst_rank_load, window.worst_rank_load);
    total.moved_slots += window.moved_slots;
    total.moved_bytes += window.moved_bytes;
    total.dispatch_bytes += window.dispatch_bytes;
    total.compute_seconds += window.compute_seconds;
    total.exchange_seconds += window.exchange_seconds;
    total.move_seconds += window.move_seconds;
    summary.num_changes += window.moved_slots > 0 ? 1 : 0;
  }
  return summary;
}

nlohmann::ordered_json numbers_of(const SimulatedWindow& window) {
  return {{"mean_max_over_mean", window.mean_max_over_mean},
          {"worst_max_over_mean", window.worst_max_over_mean},
          {"worst_rank_load", window.worst_rank_load},
          {"moved_slots", window.moved_slots},
          {"moved_bytes", window.moved_bytes},
          {"compute_seconds", window.compute_seconds},
          {"dispatch_bytes", window.dispatch_bytes},
          {"exchange_seconds", window.exchange_seconds},
          {"move_seconds", window.move_seconds},
          {"seconds", window.seconds()}};
}

/// Everything that is refused is refused here, before anything is written.
class Simulate {
 public:
  explicit Simulate(const SimulateOptions& options)
      : options_(options),
        loads_(options.loads, options.routing),
        config_{.planner = options.placement.planner(loads_.num_experts(), 0,
                                                     options.routing.threads().num_threads),
                .policy = options.placement.policy(),
                .period = options.period,
                .decay = options.decay,
                .links = options.placement.links(),
                .row_bytes = options.row_bytes},
        windows_(loads_, options.windows) {
    check_range("--ranks", config_.planner.num_ranks, 1, kMaxRanks);
    check_range("--row-bytes", options.row_bytes, 1, kMaxRowBytes);
    config_.policy.max_moved_slots = options.max_moves;
    validate(config_.policy);
    std::vector<SimulatedPolicy> policies;
    for (const std::string& name : options.policies) {
      policies.push_back(parse_simulated_policy(name));
    }
    if (!options.report.empty()) report_.emplace(options.report);
    if (!options.metrics_address.empty()) {
      if (options.metrics_seconds) {
        check_range("--metrics-seconds", static_cast<int64_t>(*options.metrics_seconds), 0,
                    1'000'000);
      }
      metrics_.emplace(options.metrics_address, windows_);
      std::cerr << "serving metrics at " << metrics_->url() << '\n';
    } else if (options.metrics_seconds) {
      throw InvalidArgument("--metrics-seconds needs --metrics-address");
    }
    for (const SimulatedPolicy policy : policies) {
      if (metrics_) metrics_->reset();
      const auto observe = [this](const SimulatedWindow& window) {
        if (metrics_) metrics_->observe(window);
      };
      summaries_.push_back(
          summarize(policy, simulate_placement(config_, windows_, policy, observe)));
    }
  }

  void tell() {
    const nlohmann::ordered_json json = to_json();
    if (report_) {
      report_->write(simulation_page(json));
      report_->commit();
    }
    if (options_.json) {
      std::cout << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
                << '\n';
    } else {
      print();
      if (report_) std::cout << "report: " << options_.report << '\n';
    }
    if (!metrics_) return;
    std::cout.flush();
    if (!options_.metrics_seconds) std::cerr << "until interrupted\n";
    SimulationMetrics::wait(options_.metrics_seconds);
  }

 private:
  [[nodiscard]] nlohmann::ordered_json to_json() const {
    nlohmann::ordered_json policies = nlohmann::ordered_json::array();
    for (const PolicySummary& summary : summaries_) {
      nlohmann::ordered_json policy = {{"policy", name_of(summary.policy)},
                                       {"changes", summary.num_changes}};
      policy.update(numbers_of(summary.total));
      nlohmann::ordered_json windows = nlohmann::ordered_json::array();
      for (const SimulatedWindow& window : summary.windows) {
        nlohmann::ordered_json row = {{"window", window.window}};
        row.update(numbers_of(window));
        windows.push_back(std::move(row));
      }
      policy["windows"] = std::move(windows);
      policies.push_back(std::move(policy));
    }
    nlohmann::ordered_json json = {{"loads", options_.loads},
                                   {"num_experts", config_.planner.num_experts},
                                   {"num_layers", windows_.num_layers()},
                                   {"num_ranks", config_.planner.num_ranks},
                                   {"num_nodes", config_.planner.num_nodes},
                                   {"num_slots", config_.planner.num_slots},
                                   {"num_windows", windows_.num_windows()},
                                   {"window", windows_.window()},
                                   {"synthetic", windows_.is_made_up()}};
    if (windows_.is_made_up()) {
      json["drift"] = options_.windows.drift;
      json["shift_every"] = options_.windows.shift_every;
      json["seed"] = options_.windows.seed;
    }
    json["links"] = tools::to_json(config_.links.model());
    json["policies"] = std::move(policies);
    return json;
  }

  void print() const {
    std::cout << options_.loads << "\n"
              << config_.planner.num_experts << " experts in " << config_.planner.num_slots
              << " slots of " << config_.planner.num_ranks << " ranks, "
              << config_.planner.num_nodes << " nodes; " << windows_.num_windows() << " windows of "
              << format_count(windows_.window())
              << (windows_.is_made_up() ? " assignments a layer, made up with seed " +
                                              std::to_string(options_.windows.seed)
                                        : " tokens")
              << "\n\n";
    TextTable table({"policy", "max/mean", "worst", "worst rank", "changes", "slots moved", "bytes",
                     "compute", "exchange", "moves", "all"});
    for (const PolicySummary& summary : summaries_) {
      const SimulatedWindow& total = summary.total;
      table.add_row({name_of(summary.policy), format_fixed(total.mean_max_over_mean, 4),
                     format_fixed(total.worst_max_over_mean, 4),
                     format_count(static_cast<int64_t>(total.worst_rank_load)),
                     format_count(summary.num_changes), format_count(total.moved_slots),
                     format_count(total.moved_bytes), format_duration(total.compute_seconds),
                     format_duration(total.exchange_seconds), format_duration(total.move_seconds),
                     format_duration(total.seconds())});
    }
    table.print(std::cout);
    std::cout << "\nall start with a plan for the first window, which is not counted; max/mean of "
                 "the ranks'\nloads: mean of windows and layers, and the worst of any layer; worst "
                 "rank: most assignments;\ntimes: estimated, all windows together\n";
  }

  const SimulateOptions& options_;
  ExpertLoads loads_;
  SimulationConfig config_;
  LoadWindows windows_;
  std::optional<OutputFile> report_;
  std::optional<SimulationMetrics> metrics_;
  std::vector<PolicySummary> summaries_;
};

void add_window_options(CLI::App& command, LoadWindowOptions& options) {
  const std::string group = "Windows";
  command
      .add_option("--window", options.window,
                  "Tokens of a trace, default a 20th of it; or assignments a layer drawn from "
                  "loads, default 1000000")
      ->type_name("N")
      ->group(group);
  command
      .add_option("--windows", options.num_windows,
                  "How many; default 20, or as many as the trace has")
      ->type_name("N")
      ->group(group);
  command
      .add_option("--drift", options.drift,
                  "Loads from a file: deviation of each one's logarithm from window to window, "
                  "default 0.1")
      ->type_name("X")
      ->group(group);
  command
      .add_option("--shift-every", options.shift_every,
                  "Loads from a file: windows after which experts trade their loads, default 0: "
                  "never")
      ->type_name("N")
      ->group(group);
  command.add_option("--seed", options.seed, "Of what is made up, default 1")
      ->type_name("S")
      ->group(group);
}

}  // namespace

void add_simulate_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "simulate", "Placement over time: policies compared on loads that change");
  const auto options = std::make_shared<SimulateOptions>();
  command
      ->add_option("loads", options->loads,
                   "Trace with router_logits or expert_ids, or JSON file of loads")
      ->required()
      ->type_name("TRACE|LOADS.json");
  command
      ->add_option("--policy", options->policies,
                   "none, periodic or budgeted, several with commas; default all")
      ->delimiter(',')
      ->type_name("NAME,…");
  command
      ->add_option("--max-moves", options->max_moves,
                   "budgeted: slots of all layers together that one change may move")
      ->type_name("M");
  command->add_option("--period", options->period, "periodic: windows between plans, default 5")
      ->type_name("N");
  command
      ->add_option("--decay", options->decay,
                   "budgeted: what is left of a window's loads one window later, default 0.5")
      ->type_name("X");
  command->add_option("--row-bytes", options->row_bytes, "Bytes of a token sent, default 7168")
      ->type_name("N");
  command->add_option("--report", options->report, "Write a page with the windows")
      ->type_name("FILE.html");
  command
      ->add_option("--metrics-address", options->metrics_address,
                   "Serve the last policy's numbers to Prometheus, until interrupted; without "
                   "HOST to this machine alone")
      ->type_name("HOST:PORT");
  command
      ->add_option("--metrics-seconds", options->metrics_seconds,
                   "Serve them for that long after the last window instead")
      ->type_name("S");
  command->add_flag("--json", options->json, "Print one JSON object");
  add_window_options(*command, options->windows);
  options->placement.add_to(*command, kUsPerToken, kRepeats);
  options->routing.add_to(*command, false);
  command->callback([options] { Simulate(*options).tell(); });
}

}  // namespace switchyard::tools
