// `switchyard plan`: who sends what to whom, and what it costs.
#include <algorithm>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "switchyard/errors.h"
#include "switchyard/global_plan.h"
#include "tools/commands.h"
#include "tools/format.h"
#include "tools/link_options.h"
#include "tools/placement_file.h"
#include "tools/routed_layer.h"
#include "tools/routing_options.h"
#include "tools/text_table.h"

namespace switchyard::tools {
namespace {

constexpr int64_t kMaxRanks = 4096;
constexpr int64_t kMaxHidden = 1 << 20;

int64_t element_bytes(const char* option, const std::string& dtype) {
  if (dtype == "bf16" || dtype == "f16") return 2;
  if (dtype == "f32") return 4;
  if (dtype == "fp8") return 1;
  throw InvalidArgument(std::string(option) + " is '" + dtype + "', must be fp8, bf16, f16 or f32");
}

struct PlanOptions {
  std::string trace;
  int64_t ranks = 0;
  int64_t nodes = 1;
  int64_t hidden = 256;
  std::string dtype = "bf16";
  std::string combine_dtype;  ///< empty: the same
  std::string placement;
  int64_t max_tokens_per_expert = 0;
  bool json = false;
  LinkOptions links;
  RoutingOptions routing;

  [[nodiscard]] int64_t dispatch_row_bytes() const {
    return hidden * element_bytes("--dtype", dtype);
  }
  [[nodiscard]] int64_t combine_row_bytes() const {
    if (combine_dtype.empty()) return dispatch_row_bytes();
    return hidden * element_bytes("--combine-dtype", combine_dtype);
  }
};

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw InvalidArgument(std::string(name) + " is " + std::to_string(value) + ", must be in [" +
                          std::to_string(low) + ", " + std::to_string(high) + "]");
  }
}

/// What is told of one layer.
struct PlannedLayer {
  int32_t index = 0;
  GlobalPlan plan;
  TrafficSummary traffic;
  int64_t trips_moved = 0;  ///< rows that leave their rank when a token travels once to a rank
  int64_t dispatch_row_bytes = 0;
  int64_t combine_row_bytes = 0;
  ExchangeCostModel dispatch_model;
  ExchangeCostModel combine_model;
  double dispatch_seconds = 0.0;
  double combine_seconds = 0.0;
};

nlohmann::ordered_json layer_to_json(const PlannedLayer& layer) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  const TrafficMatrix& counts = layer.plan.send_counts;
  for (int32_t source = 0; source < counts.num_ranks(); ++source) {
    std::vector<int64_t> row;
    for (int32_t to = 0; to < counts.num_ranks(); ++to) row.push_back(counts.at(source, to));
    rows.push_back(std::move(row));
  }
  const TrafficSummary& traffic = layer.traffic;
  return {{"layer", layer.index},
          {"send_counts", std::move(rows)},
          {"tokens_moved", traffic.rows_moved},
          {"send_imbalance", traffic.send_imbalance},
          {"recv_imbalance", traffic.recv_imbalance},
          {"compute_imbalance", traffic.compute_imbalance},
          {"dispatch_bytes", traffic.rows_moved * layer.dispatch_row_bytes},
          {"combine_bytes", traffic.rows_moved * layer.combine_row_bytes},
          {"deduplicated_tokens_moved", layer.trips_moved},
          {"deduplicated_dispatch_bytes", layer.trips_moved * layer.dispatch_row_bytes},
          {"overflow_assignments", layer.plan.overflow_assignments},
          {"tokens_per_rank", layer.plan.tokens_per_rank},
          {"dispatch_links", to_json(layer.dispatch_model)},
          {"combine_links", to_json(layer.combine_model)},
          {"predicted_dispatch_seconds", layer.dispatch_seconds},
          {"predicted_combine_seconds", layer.combine_seconds}};
}

class Planner {
 public:
  Planner(const PlanOptions& options, const Trace& trace,
          const std::vector<const TraceLayer*>& layers)
      : options_(options), trace_(trace) {
    if (!options.placement.empty()) placements_ = read_placement(options.placement);
    const std::optional<RouterConfig> config = routing_of(options.routing, trace, layers);
    if (config) router_.emplace(*config, options.routing.backend(), options.routing.threads());
    const int32_t num_experts = config ? config->num_expert_ids() : trace.num_experts();
    if (placements_) placements_->check(static_cast<int32_t>(options.ranks), num_experts, trace);
    blocks_.emplace(ExpertPlacement::contiguous(num_experts, static_cast<int32_t>(options.ranks)));
    links_ = options.links.links(static_cast<int32_t>(options.ranks / options.nodes));
  }

  [[nodiscard]] const ExchangeCostModel& model() const { return links_.model(); }

  [[nodiscard]] PlannedLayer plan(const TraceLayer& layer) const {
    std::optional<RoutedLayer> routed;
    if (router_) {
      routed = route_layer(*router_, layer, options_.routing.selection_bias(trace_, layer));
    }
    const ExpertPlacement& placement =
        placements_ ? placements_->of_layer(trace_, layer) : *blocks_;
    PlannedLayer planned;
    planned.index = layer.index;
    planned.plan = plan_globally(placement, routed ? routed->ids() : layer.expert_ids,
                                 {.max_tokens_per_expert = options_.max_tokens_per_expert});
    planned.traffic = summarize_traffic(planned.plan.send_counts);
    planned.trips_moved = summarize_traffic(planned.plan.deduplicated).rows_moved;
    planned.dispatch_row_bytes = options_.dispatch_row_bytes();
    planned.combine_row_bytes = options_.combine_row_bytes();
    predict(routed ? routed->ids().cols : layer.expert_ids.cols, planned);
    return planned;
  }

 private:
  void predict(int64_t top_k, PlannedLayer& planned) const {
    const ExchangePasses passes =
        exchange_passes(links_.row_way(), static_cast<int32_t>(options_.ranks / options_.nodes),
                        static_cast<int32_t>(std::max<int64_t>(1, top_k)));
    const TrafficMatrix& out = planned.plan.send_counts;
    const TrafficMatrix back = out.transposed();
    planned.dispatch_model = links_.model_for(out, planned.dispatch_row_bytes, passes.dispatch);
    planned.combine_model = links_.model_for(back, planned.combine_row_bytes, passes.combine);
    planned.dispatch_seconds =
        predict_seconds(planned.dispatch_model, out, planned.dispatch_row_bytes);
    planned.combine_seconds =
        predict_seconds(planned.combine_model, back, planned.combine_row_bytes);
  }

  const PlanOptions& options_;
  const Trace& trace_;
  std::optional<PlacementFile> placements_;
  std::optional<ExpertPlacement> blocks_;
  std::optional<Router> router_;
  Links links_;
};

void print(const PlanOptions& options, const std::vector<PlannedLayer>& layers,
           int64_t num_tokens) {
  std::cout << options.trace << "\n"
            << format_count(num_tokens) << " tokens on " << format_count(options.ranks)
            << " ranks, " << format_count(options.nodes) << " nodes; " << options.hidden << ' '
            << options.dtype << " a token\n\n";
  TextTable table({"layer", "moved", "send", "recv", "compute", "bytes", "deduplicated", "dispatch",
                   "combine"});
  for (const PlannedLayer& layer : layers) {
    table.add_row({std::to_string(layer.index), format_count(layer.traffic.rows_moved),
                   format_fixed(layer.traffic.send_imbalance, 2),
                   format_fixed(layer.traffic.recv_imbalance, 2),
                   format_fixed(layer.traffic.compute_imbalance, 2),
                   format_count(layer.traffic.rows_moved * layer.dispatch_row_bytes),
                   format_count(layer.trips_moved * layer.dispatch_row_bytes),
                   format_duration(layer.dispatch_seconds),
                   format_duration(layer.combine_seconds)});
  }
  table.print(std::cout);
  std::cout << "\nmoved: rows that leave their rank; send, recv and compute: max/mean over the "
               "ranks;\nbytes: one way, and where a token travels once to a rank; dispatch and "
               "combine: predicted\n";
}

void run(const PlanOptions& options) {
  check_range("--ranks", options.ranks, 1, kMaxRanks);
  check_range("--nodes", options.nodes, 1, options.ranks);
  if (options.ranks % options.nodes != 0) {
    throw InvalidArgument("--ranks is " + std::to_string(options.ranks) +
                          ", must be a multiple of --nodes, " + std::to_string(options.nodes));
  }
  check_range("--hidden", options.hidden, 1, kMaxHidden);
  static_cast<void>(options.combine_row_bytes());
  static_cast<void>(options.dispatch_row_bytes());
  const Trace trace = Trace::open(options.trace);
  const std::vector<const TraceLayer*> selected = options.routing.select_layers(trace);
  const Planner planner(options, trace, selected);
  std::vector<PlannedLayer> layers;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const TraceLayer* layer : selected) {
    PlannedLayer planned = planner.plan(*layer);
    if (options.json) rows.push_back(layer_to_json(planned));
    planned.plan = {};  // as large as the square of the ranks
    layers.push_back(std::move(planned));
  }
  if (!options.json) return print(options, layers, trace.num_tokens());
  const nlohmann::ordered_json json = {
      {"trace", options.trace},        {"num_ranks", options.ranks},
      {"num_nodes", options.nodes},    {"num_tokens", trace.num_tokens()},
      {"hidden_size", options.hidden}, {"dtype", options.dtype},
      {"layers", std::move(rows)}};
  std::cout << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n';
}

}  // namespace

void add_plan_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "plan", "Who sends what to whom in an exchange over many ranks, and what it costs");
  const auto options = std::make_shared<PlanOptions>();
  command->add_option("trace", options->trace, "Trace with router_logits or expert_ids")
      ->required()
      ->type_name("TRACE");
  command->add_option("--ranks", options->ranks, "Ranks, up to 4096")->required()->type_name("R");
  command->add_option("--nodes", options->nodes, "Nodes that they are spread over, default 1")
      ->type_name("N");
  command->add_option("--hidden", options->hidden, "Elements a token, default 256")->type_name("H");
  command->add_option("--dtype", options->dtype, "Their type: fp8, bf16 (default), f16 or f32")
      ->type_name("TYPE");
  command
      ->add_option("--combine-dtype", options->combine_dtype,
                   "The answers' type, where it is another")
      ->type_name("TYPE");
  command
      ->add_option("--placement", options->placement,
                   "Where experts live; without it in contiguous blocks")
      ->type_name("P.json");
  command
      ->add_option("--max-tokens-per-expert", options->max_tokens_per_expert,
                   "Count assignments beyond what an expert takes; 0 (default): it takes all")
      ->type_name("N");
  command->add_flag("--json", options->json, "Print one JSON object");
  options->links.add_to(*command);
  options->routing.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace switchyard::tools
