// `switchyard route`: logits in, expert ids, weights and counts out.
#include <iostream>
#include <memory>
#include <string>

#include "switchyard/build_info.h"
#include "switchyard/errors.h"
#include "switchyard/load_statistics.h"
#include "tools/commands.h"
#include "tools/format.h"
#include "tools/routed_layer.h"
#include "tools/routing_options.h"
#include "tools/text_table.h"

namespace switchyard::tools {
namespace {

struct RouteOptions {
  std::string trace;
  std::string out;
  bool json = false;
  RoutingOptions routing;
};

template <typename T>
void add(TensorFileWriter& writer, const RoutedLayer& layer, const char* name, const char* dtype,
         const std::vector<int64_t>& shape, const Buffer<T>& values) {
  writer.add("layers." + std::to_string(layer.index) + "." + name, dtype, shape,
             std::as_bytes(std::span(values.begin(), values.end())));
}

/// The trace's own metadata, with what the result is now known to be. Appended shared experts are
/// experts and slots like any other to whoever reads the file.
void set_metadata(TensorFileWriter& writer, const Trace& trace, const RouterConfig& config) {
  for (const auto& [key, value] : trace.file().metadata()) writer.set_metadata(key, value);
  writer.set_metadata("num_experts", std::to_string(config.num_expert_ids()));
  writer.set_metadata("top_k", std::to_string(config.num_slots()));
  writer.set_metadata("num_shared_experts", std::to_string(config.num_shared_experts));
  writer.set_metadata("score_function", name_of(config.score_function));
  writer.set_metadata("renormalize", config.renormalize ? "true" : "false");
  writer.set_metadata("routed_scaling_factor", format_shortest(config.routed_scaling_factor));
  writer.set_metadata("num_groups", std::to_string(config.num_groups));
  writer.set_metadata("top_groups", std::to_string(config.top_groups));
  writer.set_metadata("group_score", name_of(config.group_score));
  writer.set_metadata("written_by", "switchyard " + build_info().version);
}

void print(const RouteOptions& options, const Trace& trace, const Router& router,
           const std::vector<RoutedLayer>& layers) {
  using Json = nlohmann::ordered_json;
  Json rows = Json::array();
  TextTable table({"layer", "tokens", "busiest", "max/mean", "idle", "degenerate"});
  for (const RoutedLayer& layer : layers) {
    const LoadSummary load =
        summarize_load({layer.tokens_per_expert.data(), router.config().num_experts});
    table.add_row({std::to_string(layer.index), format_count(trace.num_tokens()),
                   "expert " + std::to_string(load.most_loaded),
                   format_fixed(load.max_over_mean, 2), format_count(load.num_idle),
                   format_count(layer.degenerate_rows[0])});
    rows.push_back({{"layer", layer.index},
                    {"max_over_mean", load.max_over_mean},
                    {"most_loaded", load.most_loaded},
                    {"idle_experts", load.num_idle},
                    {"degenerate_rows", layer.degenerate_rows[0]}});
  }
  if (options.json) {
    const Json json = {{"trace", options.trace},
                       {"out", options.out},
                       {"num_tokens", trace.num_tokens()},
                       {"backend", switchyard::name_of(router.backend())},
                       {"routing", to_json(router.config())},
                       {"layers", std::move(rows)}};
    std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    return;
  }
  table.print(std::cout);
  std::cout << "wrote " << options.out << '\n';
}

void run(const RouteOptions& options) {
  const Trace trace = Trace::open(options.trace);
  const std::vector<const TraceLayer*> selected = options.routing.select_layers(trace);
  for (const TraceLayer* layer : selected) {
    if (layer->router_logits.data == nullptr) {
      throw InvalidArgument(options.trace + ": layer " + std::to_string(layer->index) +
                            " has no router_logits to route");
    }
  }
  const Router router(options.routing.router_config(trace), options.routing.backend(),
                      options.routing.threads());
  std::vector<RoutedLayer> layers;
  for (const TraceLayer* layer : selected) {
    layers.push_back(route_layer(router, *layer, options.routing.selection_bias(trace, *layer)));
  }

  TensorFileWriter writer;
  set_metadata(writer, trace, router.config());
  const std::vector<int64_t> shape{trace.num_tokens(), router.config().num_slots()};
  for (const RoutedLayer& layer : layers) {
    add(writer, layer, "expert_ids", "I32", shape, layer.expert_ids);
    add(writer, layer, "gate_weights", "F32", shape, layer.gate_weights);
    add(writer, layer, "tokens_per_expert", "I64", {router.config().num_expert_ids()},
        layer.tokens_per_expert);
  }
  writer.write(options.out);
  print(options, trace, router, layers);
}

}  // namespace

void add_route_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "route", "Route a trace's logits; write expert ids, gate weights and counts");
  const auto options = std::make_shared<RouteOptions>();
  command->add_option("trace", options->trace, "Trace with router_logits (.safetensors)")
      ->required()
      ->type_name("TRACE");
  command->add_option("--out", options->out, "File to write (.safetensors)")
      ->required()
      ->type_name("OUT");
  command->add_flag("--json", options->json, "Print one JSON object");
  options->routing.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace switchyard::tools
