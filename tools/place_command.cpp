// `switchyard place`: where the copies of experts should live.
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "switchyard/errors.h"
#include "switchyard/output_file.h"
#include "tools/commands.h"
#include "tools/expert_loads.h"
#include "tools/format.h"
#include "tools/placement_file.h"
#include "tools/placement_options.h"
#include "tools/text_table.h"

namespace switchyard::tools {
namespace {

struct PlaceOptions {
  std::string loads;
  std::string out;
  std::string previous;
  std::optional<int64_t> max_moves;
  bool json = false;
  PlacementOptions placement;
  RoutingOptions routing;
};

const char* name_of(PlacementVerdict verdict) {
  switch (verdict) {
    case PlacementVerdict::kPlanned:
      return "planned";
    case PlacementVerdict::kChanged:
      return "changed";
    case PlacementVerdict::kGoodEnough:
      return "good enough";
    case PlacementVerdict::kNotWorthCost:
      break;
  }
  return "not worth its cost";
}

const char* name_of(MoveKind kind) {
  switch (kind) {
    case MoveKind::kCopy:
      return "copy";
    case MoveKind::kSetAside:
      return "set_aside";
    case MoveKind::kPutBack:
      break;
  }
  return "put_back";
}

/// Placements in force of the loads' layers: the file has one for all, or one for each.
std::vector<ExpertPlacement> in_force_of(const PlacementFile& file, const ExpertLoads& loads,
                                         const PlacementPlannerConfig& config) {
  file.check(config.num_ranks, config.num_experts, loads.layers().size(), loads.path());
  for (const ExpertPlacement& layer : file.layers) {
    if (layer.num_slots() == config.num_slots) continue;
    throw InvalidArgument(file.path + " has " + std::to_string(layer.num_slots()) +
                          " slots, --slots is " + std::to_string(config.num_slots));
  }
  if (file.layers.size() > 1) return file.layers;
  return {loads.layers().size(), file.layers.front()};
}

class Placing {
 public:
  explicit Placing(const PlaceOptions& options)
      : options_(options), loads_(options.loads, options.routing) {
    std::optional<PlacementFile> previous;
    if (!options.previous.empty()) previous = read_placement(options.previous);
    config_ = options.placement.planner(loads_.num_experts(),
                                        previous ? previous->layers.front().num_slots() : 0,
                                        options.routing.threads().num_threads);
    policy_ = options.placement.policy();
    policy_.max_moved_slots = options.max_moves;
    validate(policy_);
    if (previous) {
      const auto in_force = in_force_of(*previous, loads_, config_);
      plan_ = replan_placement(config_, loads_.view(), in_force, policy_);
    } else {
      plan_ = plan_placement(config_, loads_.view());
    }
  }

  void tell() const {
    OutputFile file(options_.out);
    file.write(placement_text(plan_, config_.num_nodes));
    file.commit();
    if (options_.json) {
      std::cout << to_json().dump() << '\n';
    } else {
      print();
    }
  }

 private:
  /// Of the placement in force, else of contiguous blocks.
  [[nodiscard]] double before(std::size_t layer) const {
    if (!options_.previous.empty()) return plan_.layers[layer].max_over_mean_before;
    const auto blocks = ExpertPlacement::contiguous(config_.num_experts, config_.num_ranks);
    return max_over_mean(blocks,
                         {loads_.view().row(static_cast<int64_t>(layer)), config_.num_experts},
                         config_.rank_speeds);
  }

  [[nodiscard]] int64_t bytes_of(int64_t layer) const {
    int64_t bytes = 0;
    for (const PlacementMove& move : plan_.moves) bytes += move.layer == layer ? move.bytes : 0;
    return bytes;
  }

  [[nodiscard]] nlohmann::ordered_json to_json() const {
    nlohmann::ordered_json layers = nlohmann::ordered_json::array();
    nlohmann::ordered_json moves = nlohmann::ordered_json::array();
    int64_t bytes = 0;
    for (std::size_t i = 0; i < plan_.layers.size(); ++i) {
      const int64_t of_layer = bytes_of(static_cast<int64_t>(i));
      bytes += of_layer;
      layers.push_back({{"layer", loads_.layers()[i]},
                        {"max_over_mean_before", before(i)},
                        {"max_over_mean", plan_.layers[i].max_over_mean},
                        {"moved_slots", plan_.layers[i].moved_slots},
                        {"moved_bytes", of_layer}});
    }
    for (const PlacementMove& move : plan_.moves) {
      moves.push_back({{"kind", name_of(move.kind)},
                       {"layer", loads_.layers()[static_cast<std::size_t>(move.layer)]},
                       {"expert", move.expert},
                       {"from_slot", move.from_slot},
                       {"from_rank", move.from_rank},
                       {"to_slot", move.to_slot},
                       {"to_rank", move.to_rank},
                       {"bytes", move.bytes}});
    }
    return {{"loads", options_.loads},
            {"placement", options_.out},
            {"num_experts", config_.num_experts},
            {"num_ranks", config_.num_ranks},
            {"num_nodes", config_.num_nodes},
            {"num_slots", config_.num_slots},
            {"verdict", name_of(plan_.verdict)},
            {"moved_slots", plan_.moved_slots},
            {"moved_bytes", bytes},
            {"gain_seconds", plan_.gain_seconds},
            {"cost_seconds", plan_.cost_seconds},
            {"layers", std::move(layers)},
            {"moves", std::move(moves)}};
  }

  void print() const {
    const auto slots = int64_t{config_.num_slots} * loads_.num_layers();
    std::cout << options_.loads << "\n"
              << config_.num_experts << " experts in " << config_.num_slots << " slots of "
              << config_.num_ranks << " ranks, " << config_.num_nodes << " nodes\n\n";
    const bool moves = !options_.previous.empty();
    TextTable table(moves ? std::vector<std::string>{"layer", "before", "after", "moved", "bytes"}
                          : std::vector<std::string>{"layer", "blocks", "placed"});
    double mean_before = 0.0;
    double mean_after = 0.0;
    const auto add = [&](const std::string& name, double was, double is, int64_t moved,
                         int64_t bytes) {
      std::vector<std::string> cells{name, format_fixed(was, 4), format_fixed(is, 4)};
      if (moves) cells.insert(cells.end(), {format_count(moved), format_count(bytes)});
      table.add_row(std::move(cells));
    };
    int64_t bytes = 0;
    for (std::size_t i = 0; i < plan_.layers.size(); ++i) {
      const PlannedLayer& layer = plan_.layers[i];
      const double was = before(i);
      const int64_t of_layer = bytes_of(static_cast<int64_t>(i));
      add(std::to_string(loads_.layers()[i]), was, layer.max_over_mean, layer.moved_slots,
          of_layer);
      mean_before += was / static_cast<double>(plan_.layers.size());
      mean_after += layer.max_over_mean / static_cast<double>(plan_.layers.size());
      bytes += of_layer;
    }
    table.add_rule();
    add("mean", mean_before, mean_after, plan_.moved_slots, bytes);
    table.print(std::cout);
    std::cout << "\nmax/mean of the ranks' loads"
              << (moves ? " under the placement in force and the new one" : "") << '\n';
    if (moves) {
      std::cout << name_of(plan_.verdict) << ": " << format_count(plan_.moved_slots) << " of "
                << format_count(slots) << " slots moved";
      if (policy_.seconds_per_load > 0.0) {
        std::cout << "; saves " << format_duration(plan_.gain_seconds) << ", costs "
                  << format_duration(plan_.cost_seconds);
      }
      std::cout << '\n';
    }
    std::cout << "placement: " << options_.out << '\n';
  }

  const PlaceOptions& options_;
  ExpertLoads loads_;
  PlacementPlannerConfig config_;
  MigrationPolicy policy_;
  PlacementPlan plan_;
};

}  // namespace

void add_place_command(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("place", "Where the copies of experts should live, from their loads");
  const auto options = std::make_shared<PlaceOptions>();
  command
      ->add_option("loads", options->loads,
                   "Trace with router_logits or expert_ids, or JSON file of loads")
      ->required()
      ->type_name("TRACE|LOADS.json");
  command->add_option("--out", options->out, "Where to write the placement")
      ->required()
      ->type_name("P.json");
  CLI::Option* previous =
      command
          ->add_option("--previous", options->previous,
                       "The placement in force: change it where that pays, instead of planning "
                       "from nothing")
          ->type_name("P.json");
  command
      ->add_option("--max-moves", options->max_moves,
                   "Slots of all layers together that may get another expert")
      ->type_name("M")
      ->needs(previous);
  command->add_flag("--json", options->json, "Print one JSON object, with the moves in safe order");
  options->placement.add_to(*command, 0.0, 1.0);
  options->routing.add_to(*command, false);
  command->callback([options] { Placing(*options).tell(); });
}

}  // namespace switchyard::tools
