#include "tools/placement_file.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "switchyard/errors.h"

namespace switchyard::tools {

void PlacementFile::check(int32_t ranks, int32_t experts, const Trace& trace) const {
  check(ranks, experts, trace.layers().size(), trace.file().source_name());
}

void PlacementFile::check(int32_t ranks, int32_t experts, std::size_t num_layers,
                          const std::string& source) const {
  const auto expect = [&](const char* what, auto here, auto there, const std::string& where) {
    if (here == there) return;
    throw InvalidArgument(path + " is for " + std::to_string(here) + " " + what + ", " + where +
                          std::to_string(there));
  };
  const std::string has = source + " has ";
  expect("ranks", num_ranks, ranks, "--ranks is ");
  expect("experts", num_experts, experts, has);
  if (layers.size() > 1) expect("layers", layers.size(), num_layers, has);
}

const ExpertPlacement& PlacementFile::of_layer(const Trace& trace, const TraceLayer& layer) const {
  if (layers.size() == 1) return layers.front();
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

std::string placement_text(const PlacementPlan& plan, int32_t num_nodes) {
  const ExpertPlacement& first = plan.layers.front().placement;
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const PlannedLayer& layer : plan.layers) {
    layers.push_back({{"slot_to_expert", layer.placement.slot_to_expert()},
                      {"max_over_mean", layer.max_over_mean}});
  }
  const nlohmann::ordered_json file = {{"num_experts", first.num_experts()},
                                       {"num_ranks", first.num_ranks()},
                                       {"num_nodes", num_nodes},
                                       {"slots_per_rank", first.num_slots_of(0)},
                                       {"layers", std::move(layers)},
                                       {"moved_slots", plan.moved_slots}};
  return file.dump() + "\n";
}

}  // namespace switchyard::tools
