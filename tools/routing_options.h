// The options that say how to route, shared by the subcommands that do.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/router.h"
#include "switchyard/trace.h"

namespace switchyard::tools {

const char* name_of(ScoreFunction score);  ///< "sqrt_softplus", as in a trace's metadata
const char* name_of(GroupScore score);     ///< "top2_sum"

/// How a router is configured, for JSON output.
nlohmann::ordered_json to_json(const RouterConfig& config);

class RoutingOptions {
 public:
  /// Adds the options to a subcommand; this object must outlive its parsing.
  /// @param with_groups  false leaves --groups and its like to the subcommand: a model limited to
  ///                     groups is then told by --model or the trace's metadata.
  void add_to(CLI::App& command, bool with_groups = true);

  /// The layers that --layer asks for, by index.
  /// @throws InvalidArgument  when the trace has no such layer.
  [[nodiscard]] std::vector<const TraceLayer*> select_layers(const Trace& trace) const;

  /// The flags over the preset, or over the trace's metadata where there is no --model.
  /// @throws InvalidArgument  for values that are not legal, or a preset of another model's size.
  [[nodiscard]] RouterConfig router_config(const Trace& trace) const;

  /// What --bias means for this layer; empty for no bias.
  /// @throws InvalidArgument  for a tensor that is missing or of the wrong type or length.
  [[nodiscard]] VectorView<const float> selection_bias(const Trace& trace,
                                                       const TraceLayer& layer) const;

  [[nodiscard]] Backend backend() const;
  [[nodiscard]] CpuThreads threads() const;

  /// The first option given that changes how logits are routed, empty for none.
  [[nodiscard]] std::string first_given() const;

 private:
  [[nodiscard]] RouterConfig config_from_metadata(const Trace& trace) const;

  std::optional<std::string> model_;
  std::optional<int32_t> top_k_;
  std::optional<std::string> score_;
  std::optional<bool> renormalize_;
  std::optional<float> scale_;
  std::optional<int32_t> groups_;
  std::optional<int32_t> top_groups_;
  std::optional<std::string> group_score_;
  std::optional<std::string> bias_;
  int32_t shared_experts_ = 0;
  std::string layer_ = "all";
  std::string backend_ = "auto";
  int threads_ = 0;
  std::vector<const CLI::Option*> changes_routing_;
};

}  // namespace switchyard::tools
