#include "tools/run_results.h"

#include <algorithm>

#include "switchyard/load_statistics.h"
#include "tools/format.h"
#include "tools/routing_options.h"
#include "tools/text_table.h"

namespace switchyard::tools {
namespace {

using Json = nlohmann::ordered_json;

LoadSummary summarize(const LayerResults& layer) {
  return summarize_load(
      {layer.tokens_per_expert.data(), static_cast<int64_t>(layer.tokens_per_expert.size())});
}

double rate(int64_t num_tokens, double seconds) {
  return seconds > 0.0 ? static_cast<double>(num_tokens) / seconds : 0.0;
}

Json to_json(const StageSeconds& seconds, int num_ranks) {
  Json json;
  for (const Stage& stage : stages_of(num_ranks)) json[stage.name] = seconds.*stage.seconds;
  return json;
}

Json matrix_to_json(const TrafficMatrix& traffic) {
  Json rows = Json::array();
  for (int32_t source = 0; source < traffic.num_ranks(); ++source) {
    std::vector<int64_t> row;
    for (int32_t to = 0; to < traffic.num_ranks(); ++to) row.push_back(traffic.at(source, to));
    rows.push_back(std::move(row));
  }
  return rows;
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

/// All layers together; entropies are averaged, degenerate rows and times added.
struct Totals {
  StageSeconds seconds;
  int64_t assignments = 0;
  int64_t idle_experts = 0;
  double mean_of_max_over_mean = 0.0;
  double worst_max_over_mean = 0.0;
  double mean_cv = 0.0;
  std::optional<int64_t> degenerate_rows;
  std::optional<double> mean_weight_entropy;
};

Totals totals_of(const RunResults& results) {
  Totals totals;
  double entropy = 0.0;
  int64_t num_entropies = 0;
  for (const LayerResults& layer : results.layers) {
    const LoadSummary load = summarize(layer);
    for (const Stage& stage : stages_of(results.num_ranks)) {
      totals.seconds.*stage.seconds += layer.seconds.*stage.seconds;
    }
    totals.assignments += load.total;
    totals.idle_experts += load.num_idle;
    totals.mean_of_max_over_mean += load.max_over_mean;
    totals.worst_max_over_mean = std::max(totals.worst_max_over_mean, load.max_over_mean);
    totals.mean_cv += load.coefficient_of_variation;
    if (layer.degenerate_rows) {
      totals.degenerate_rows = totals.degenerate_rows.value_or(0) + *layer.degenerate_rows;
    }
    if (layer.mean_weight_entropy) {
      entropy += *layer.mean_weight_entropy;
      ++num_entropies;
    }
  }
  const auto num_layers = static_cast<double>(results.layers.size());
  totals.mean_of_max_over_mean /= num_layers;
  totals.mean_cv /= num_layers;
  if (num_entropies > 0) totals.mean_weight_entropy = entropy / static_cast<double>(num_entropies);
  return totals;
}

Json layer_to_json(const RunResults& results, const LayerResults& layer) {
  const LoadSummary load = summarize(layer);
  Json json = {{"layer", layer.index},
               {"assignments", load.total},
               {"mean_load", load.mean},
               {"max_load", load.max},
               {"max_over_mean", load.max_over_mean},
               {"most_loaded", load.most_loaded},
               {"idle_experts", load.num_idle},
               {"coefficient_of_variation", load.coefficient_of_variation},
               {"gini", load.gini},
               {"mean_weight_entropy", or_null(layer.mean_weight_entropy)},
               {"degenerate_rows", or_null(layer.degenerate_rows)},
               {"seconds", to_json(layer.seconds, results.num_ranks)},
               {"tokens_per_second", rate(results.num_tokens, layer.seconds.library())},
               {"tokens_per_expert", layer.tokens_per_expert}};
  if (results.num_ranks > 1) {
    const TrafficSummary traffic = summarize_traffic(layer.send_counts);
    json["send_counts"] = matrix_to_json(layer.send_counts);
    json["tokens_moved"] = traffic.rows_moved;
    json["send_imbalance"] = traffic.send_imbalance;
    json["recv_imbalance"] = traffic.recv_imbalance;
    json["compute_imbalance"] = traffic.compute_imbalance;
  }
  return json;
}

std::string count_or_dash(const std::optional<int64_t>& value) {
  return value ? format_count(*value) : "-";
}

std::string number_or_dash(const std::optional<double>& value) {
  return value ? format_fixed(*value, 2) : "-";
}

std::string describe_routing(const RunResults& results) {
  const std::string choice = "top " + std::to_string(results.top_k) + " of " +
                             std::to_string(results.num_experts) + " experts";
  if (!results.routing) return choice + ", as the trace says";
  const RouterConfig& config = *results.routing;
  std::string text = choice + ", " + name_of(config.score_function);
  if (config.renormalize) text += " renormalised";
  if (config.routed_scaling_factor != 1.0f) {
    text += " x " + format_shortest(config.routed_scaling_factor);
  }
  if (config.num_groups > 1) {
    text += ", best " + std::to_string(config.top_groups) + " of " +
            std::to_string(config.num_groups) + " groups by " + name_of(config.group_score);
  }
  if (config.num_shared_experts > 0) {
    text += ", " + std::to_string(config.num_shared_experts) + " shared appended";
  }
  return text;
}

}  // namespace

std::span<const Stage> stages_of(int num_ranks) {
  using Seconds = StageSeconds;
  static constexpr Stage kOneRank[] = {{"route", &Seconds::route},
                                       {"sort", &Seconds::sort},
                                       {"permute", &Seconds::permute},
                                       {"experts", &Seconds::experts},
                                       {"unpermute", &Seconds::unpermute}};
  static constexpr Stage kSeveral[] = {{"route", &Seconds::route},
                                       {"plan", &Seconds::plan},
                                       {"dispatch", &Seconds::dispatch},
                                       {"experts", &Seconds::experts},
                                       {"combine", &Seconds::combine}};
  if (num_ranks == 1) return kOneRank;
  return kSeveral;
}

nlohmann::ordered_json to_json(const RunResults& results) {
  const Totals totals = totals_of(results);
  Json layers = Json::array();
  for (const LayerResults& layer : results.layers) layers.push_back(layer_to_json(results, layer));
  const int64_t layer_tokens = results.num_tokens * static_cast<int64_t>(results.layers.size());
  return {{"trace", results.trace},
          {"model", results.model},
          {"num_ranks", results.num_ranks},
          {"transport", results.num_ranks > 1 ? Json(results.transport) : Json()},
          {"num_tokens", results.num_tokens},
          {"num_experts", results.num_experts},
          {"top_k", results.top_k},
          {"routing", results.routing ? tools::to_json(*results.routing) : Json()},
          {"routing_text", describe_routing(results)},
          {"backend", results.backend},
          {"hidden_size", results.hidden_size},
          {"dtype", switchyard::name_of(results.dtype)},
          {"seed", results.seed},
          {"verified", true},
          {"verified_values", results.verified_values},
          {"layers", std::move(layers)},
          {"totals",
           {{"assignments", totals.assignments},
            {"mean_max_over_mean", totals.mean_of_max_over_mean},
            {"worst_max_over_mean", totals.worst_max_over_mean},
            {"mean_coefficient_of_variation", totals.mean_cv},
            {"idle_experts", totals.idle_experts},
            {"mean_weight_entropy", or_null(totals.mean_weight_entropy)},
            {"degenerate_rows", or_null(totals.degenerate_rows)},
            {"seconds", to_json(totals.seconds, results.num_ranks)},
            {"tokens_per_second", rate(layer_tokens, totals.seconds.library())}}}};
}

void print(const RunResults& results, std::ostream& out) {
  const Totals totals = totals_of(results);
  out << results.trace;
  if (!results.model.empty()) out << " (" << results.model << ')';
  out << "\n"
      << format_count(results.num_tokens) << " tokens, " << describe_routing(results) << "; "
      << results.hidden_size << ' ' << switchyard::name_of(results.dtype) << " a token, backend "
      << results.backend;
  if (results.num_ranks > 1) {
    out << ", " << results.num_ranks << " ranks over " << results.transport;
  }
  out << "\n\n";

  std::vector<std::string> titles{"layer", "busiest", "tokens",  "max/mean",
                                  "idle",  "cv",      "entropy", "degenerate"};
  if (results.num_ranks > 1) titles.insert(titles.end(), {"moved", "rank max/mean"});
  for (const Stage& stage : stages_of(results.num_ranks)) titles.emplace_back(stage.name);
  titles.emplace_back("tokens/s");
  TextTable table(std::move(titles));
  const auto add = [&](std::vector<std::string> cells, const StageSeconds& seconds,
                       int64_t num_tokens) {
    for (const Stage& stage : stages_of(results.num_ranks)) {
      cells.push_back(format_duration(seconds.*stage.seconds));
    }
    cells.push_back(format_rate(rate(num_tokens, seconds.library())));
    table.add_row(std::move(cells));
  };
  for (const LayerResults& layer : results.layers) {
    const LoadSummary load = summarize(layer);
    std::vector<std::string> cells{std::to_string(layer.index),
                                   "expert " + std::to_string(load.most_loaded),
                                   format_count(load.max),
                                   format_fixed(load.max_over_mean, 2),
                                   format_count(load.num_idle),
                                   format_fixed(load.coefficient_of_variation, 2),
                                   number_or_dash(layer.mean_weight_entropy),
                                   count_or_dash(layer.degenerate_rows)};
    if (results.num_ranks > 1) {
      const TrafficSummary traffic = summarize_traffic(layer.send_counts);
      cells.push_back(format_count(traffic.rows_moved));
      cells.push_back(format_fixed(traffic.compute_imbalance, 2));
    }
    add(std::move(cells), layer.seconds, results.num_tokens);
  }
  table.add_rule();
  std::vector<std::string> cells{"all",
                                 "",
                                 "",
                                 format_fixed(totals.mean_of_max_over_mean, 2),
                                 format_count(totals.idle_experts),
                                 format_fixed(totals.mean_cv, 2),
                                 number_or_dash(totals.mean_weight_entropy),
                                 count_or_dash(totals.degenerate_rows)};
  if (results.num_ranks > 1) cells.insert(cells.end(), 2, "");
  add(std::move(cells), totals.seconds,
      results.num_tokens * static_cast<int64_t>(results.layers.size()));
  table.print(out);
  out << "\nAll layers: means of max/mean, cv and entropy (nats, of a token's weights), sums of "
         "the "
         "rest.\nTimes are the shortest of several runs; tokens/s leaves the stand-in experts "
         "out.\n"
      << "verified: " << format_count(results.verified_values)
      << " combined values equal a dense computation, bit for bit\n";
}

}  // namespace switchyard::tools
