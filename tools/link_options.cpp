#include "tools/link_options.h"

#include <charconv>
#include <string_view>

#include "switchyard/errors.h"
#include "tools/measured_links.h"

namespace switchyard::tools {
namespace {

// What an H100 has: its NCCL moves 358 GB/s over NVLink in an all-to-all of 4 GPUs, and a port of
// 400 Gbit/s for each GPU between nodes. The latencies are guesses; measured results replace them.
constexpr LinkCost kNode{5.0, 358.0};
constexpr LinkCost kNetwork{10.0, 50.0};

double parse_number(const std::string& option, const std::string& text, std::string_view part) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
  if (error != std::errc() || end != part.data() + part.size()) {
    throw InvalidArgument(option + " is '" + text + "', must be LATENCY_US:GBPS");
  }
  return value;
}

LinkCost parse_link(const std::string& option, const std::string& text) {
  const std::string_view view = text;
  const std::size_t colon = view.find(':');
  if (colon == view.npos) {
    throw InvalidArgument(option + " is '" + text + "', must be LATENCY_US:GBPS");
  }
  return {parse_number(option, text, view.substr(0, colon)),
          parse_number(option, text, view.substr(colon + 1))};
}

RowWay parse_way(const std::string& name) {
  if (name == "lent") return RowWay::kLent;
  if (name == "staged") return RowWay::kStaged;
  if (name == "messages") return RowWay::kMessages;
  throw InvalidArgument("--rows is '" + name + "', must be lent, staged or messages");
}

}  // namespace

void LinkOptions::add_to(CLI::App& command) {
  const std::string group = "Links";
  CLI::Option* node =
      command
          .add_option("--node-link", node_link_,
                      "Latency of a message and bandwidth of a rank inside a node, default 5:358")
          ->type_name("US:GBPS")
          ->group(group);
  CLI::Option* network =
      command.add_option("--network-link", network_link_, "The same between nodes, default 10:50")
          ->type_name("US:GBPS")
          ->group(group);
  command
      .add_option("--node-results", node_results_,
                  "Fit the link inside a node to what alltoall_perf -J wrote, for each exchange to "
                  "all-to-alls of about its size; of a memory that ranks lend or stage rows in, "
                  "between threads (-t)")
      ->type_name("FILE")
      ->group(group)
      ->excludes(node);
  command
      .add_option("--network-results", network_results_,
                  "The same of the link between nodes, measured with one rank a node")
      ->type_name("FILE")
      ->group(group)
      ->excludes(network);
  CLI::Option* shared = command
                            .add_flag("--shared-node-link", shares_,
                                      "The bandwidth inside a node is all its ranks' together, as "
                                      "that of a memory")
                            ->group(group);
  command
      .add_option(
          "--rows", row_way_,
          "How rows get from rank to rank in such a node: lent (default: in memory that all of "
          "them use), staged (in private memory) or messages")
      ->type_name("WAY")
      ->group(group)
      ->needs(shared);
}

Links LinkOptions::links(int32_t ranks_per_node) const {
  Links links;
  links.row_way_ = parse_way(row_way_);
  ExchangeCostModel& model = links.model_;
  model = {.ranks_per_node = ranks_per_node,
           .node = kNode,
           .network = kNetwork,
           .shares_node_bandwidth = shares_};
  if (!node_link_.empty()) model.node = parse_link("--node-link", node_link_);
  if (!network_link_.empty()) model.network = parse_link("--network-link", network_link_);
  if (!node_results_.empty()) {
    links.node_ = {node_results_, read_measured_links(node_results_)};
    model.node = Links::fit(links.node_, shares_);
  }
  if (!network_results_.empty()) {
    links.network_ = {network_results_, read_measured_links(network_results_)};
    model.network = Links::fit(links.network_, false);
  }
  validate(model);
  return links;
}

LinkCost Links::fit(const Measured& measured, bool shares) {
  try {
    return fit_link(measured.timings, shares);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(measured.path + ": " + error.what());
  }
}

ExchangeCostModel Links::model_for(const TrafficMatrix& traffic, int64_t row_bytes,
                                   double row_passes) const {
  ExchangeCostModel model = model_;
  if (model.shares_node_bandwidth) model.row_passes = row_passes;
  const auto fit = [&](const std::string& path, const MeasuredLinks& measured) {
    try {
      fit_links(model, traffic, row_bytes, measured);
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(path + ": " + error.what());
    }
  };
  fit(node_.path, {node_.timings, {}});
  fit(network_.path, {{}, network_.timings});
  return model;
}

nlohmann::ordered_json to_json(const ExchangeCostModel& model) {
  const auto link = [](const LinkCost& cost) {
    return nlohmann::ordered_json{{"latency_us", cost.latency_us},
                                  {"bandwidth_gbps", cost.bandwidth_gbps}};
  };
  return {{"ranks_per_node", model.ranks_per_node},
          {"node", link(model.node)},
          {"network", link(model.network)},
          {"shares_node_bandwidth", model.shares_node_bandwidth},
          {"row_passes", model.row_passes}};
}

}  // namespace switchyard::tools
