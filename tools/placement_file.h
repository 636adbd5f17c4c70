// A placement of experts in a JSON file, layer by layer.
#pragma once

#include <string>
#include <vector>

#include "switchyard/expert_placement.h"
#include "switchyard/placement_planner.h"
#include "switchyard/trace.h"

namespace switchyard::tools {

/// `{"num_experts", "num_ranks", "num_nodes", "slots_per_rank", "layers": [{"slot_to_expert": […]},
/// …]}`; slot s lives on rank s / slots_per_rank, -1 is an empty slot.
struct PlacementFile {
  std::string path;
  int32_t num_experts = 0;
  int32_t num_ranks = 0;
  int32_t num_nodes = 1;
  std::vector<ExpertPlacement> layers;

  /// @throws InvalidArgument  when it is for other ranks, experts or layers, naming both numbers.
  void check(int32_t ranks, int32_t experts, const Trace& trace) const;
  /// The same against `num_layers` of `source`.
  void check(int32_t ranks, int32_t experts, std::size_t num_layers,
             const std::string& source) const;
  /// The placement of one of the trace's layers: the file has one for all, or one for each.
  [[nodiscard]] const ExpertPlacement& of_layer(const Trace& trace, const TraceLayer& layer) const;
};

/// @throws IoError          when the file cannot be read or is not JSON of that form.
/// @throws InvalidArgument  when a layer's placement is refused, naming the layer.
PlacementFile read_placement(const std::string& path);

/// The text of such a file, with each layer's max/mean and the slots that were moved.
std::string placement_text(const PlacementPlan& plan, int32_t num_nodes);

}  // namespace switchyard::tools
