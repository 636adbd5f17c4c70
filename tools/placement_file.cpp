#include "tools/placement_file.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "switchyard/errors.h"

namespace switchyard::tools {

const ExpertPlacement& PlacementFile::of_layer(const Trace& trace, const TraceLayer& layer) const {
  if (layers.size() == 1) return layers.front();
  if (layers.size() != trace.layers().size()) {
    throw InvalidArgument(path + " places " + std::to_string(layers.size()) + " layers, " +
                          trace.file().source_name() + " has " +
                          std::to_string(trace.layers().size()));
  }
  return layers[static_cast<std::size_t>(&layer - trace.layers().data())];
}

PlacementFile read_placement(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw IoError("cannot read " + path);
  PlacementFile file;
  file.path = path;
  std::vector<std::vector<int32_t>> slots;
  try {
    const auto json = nlohmann::json::parse(stream);
    file.num_experts = json.at("num_experts").get<int32_t>();
    file.num_ranks = json.at("num_ranks").get<int32_t>();
    file.num_nodes = json.value("num_nodes", 1);
    for (const auto& layer : json.at("layers")) {
      slots.push_back(layer.at("slot_to_expert").get<std::vector<int32_t>>());
    }
    if (slots.empty()) throw IoError(path + " places no layer");
    const auto per_rank = json.find("slots_per_rank");
    if (per_rank != json.end()) {
      const auto wanted = per_rank->get<int64_t>() * file.num_ranks;
      for (std::size_t layer = 0; layer < slots.size(); ++layer) {
        if (static_cast<int64_t>(slots[layer].size()) == wanted) continue;
        throw InvalidArgument(path + ": layers[" + std::to_string(layer) + "] has " +
                              std::to_string(slots[layer].size()) + " slots, must have " +
                              std::to_string(wanted));
      }
    }
  } catch (const nlohmann::json::exception& error) {
    throw IoError(path + " is no placement: " + error.what());
  }
  for (std::size_t layer = 0; layer < slots.size(); ++layer) {
    try {
      file.layers.push_back(
          ExpertPlacement::from_slots(file.num_experts, file.num_ranks, slots[layer]));
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(path + ": layers[" + std::to_string(layer) + "]: " + error.what());
    }
  }
  return file;
}

}  // namespace switchyard::tools
