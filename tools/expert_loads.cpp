#include "tools/expert_loads.h"

#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "switchyard/errors.h"
#include "switchyard/expert_placement.h"

namespace switchyard::tools {
namespace {

/// A trace's file starts with the length of its header, which starts with a brace.
bool is_trace(const std::string& path) {
  std::array<char, 9> start{};
  std::ifstream file(path, std::ios::binary);
  if (!file.read(start.data(), start.size())) return path.ends_with(".safetensors");
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i) {
    header = header << 8 | static_cast<unsigned char>(start[static_cast<std::size_t>(i)]);
  }
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return path.ends_with(".safetensors") || (start[8] == '{' && !error && header < size);
}

}  // namespace

ExpertLoads::ExpertLoads(const std::string& path, const RoutingOptions& routing) : path_(path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) || std::filesystem::is_directory(path, error) ||
      is_trace(path)) {
    read_trace(routing);  // which also says what is wrong with the path
  } else {
    read_loads(routing);
  }
}

void ExpertLoads::read_trace(const RoutingOptions& routing) {
  trace_ = std::make_unique<Trace>(Trace::open(path_));
  const std::vector<const TraceLayer*> selected = routing.select_layers(*trace_);
  const std::optional<RouterConfig> config = routing_of(routing, *trace_, selected);
  num_tokens_ = trace_->num_tokens();
  num_experts_ = config ? config->num_expert_ids() : trace_->num_experts();
  std::optional<Router> router;
  if (config) router.emplace(*config, routing.backend(), routing.threads());
  for (const TraceLayer* layer : selected) {
    layers_.push_back(layer->index);
    if (!router) {
      ids_.push_back(layer->expert_ids);
      continue;
    }
    routed_.push_back(route_layer(*router, *layer, routing.selection_bias(*trace_, *layer)));
    ids_.push_back(routed_.back().ids());  // its buffer stays where it is when the vector grows
  }
  for (const int64_t count : counts(0, num_tokens_)) values_.push_back(static_cast<double>(count));
}

std::vector<int64_t> ExpertLoads::counts(int64_t begin, int64_t end) const {
  std::vector<int64_t> counted(layers_.size() * static_cast<std::size_t>(num_experts_));
  for (std::size_t layer = 0; layer < ids_.size(); ++layer) {
    int64_t* of_layer = counted.data() + layer * static_cast<std::size_t>(num_experts_);
    for (int64_t token = begin; token < end; ++token) {
      const int32_t* row = ids_[layer].row(token);
      for (int64_t slot = 0; slot < ids_[layer].cols; ++slot) {
        if (row[slot] >= 0) ++of_layer[row[slot]];
      }
    }
  }
  return counted;
}

void ExpertLoads::read_loads(const RoutingOptions& routing) {
  const std::string given = routing.first_given();
  if (!given.empty()) {
    throw InvalidArgument(given + " changes nothing: " + path_ + " holds loads");
  }
  std::ifstream stream(path_);
  if (!stream) throw IoError("cannot read " + path_);
  std::vector<std::vector<double>> rows;
  try {
    rows = nlohmann::json::parse(stream).at("loads").get<std::vector<std::vector<double>>>();
  } catch (const nlohmann::json::exception& error) {
    throw IoError(path_ + " is neither a trace nor loads: " + error.what());
  }
  if (rows.empty() || rows.front().empty()) throw IoError(path_ + " holds no loads");
  for (std::size_t layer = 0; layer < rows.size(); ++layer) {
    if (rows[layer].size() != rows.front().size()) {
      throw InvalidArgument(path_ + ": loads[" + std::to_string(layer) + "] has " +
                            std::to_string(rows[layer].size()) + " experts, loads[0] has " +
                            std::to_string(rows.front().size()));
    }
    for (std::size_t expert = 0; expert < rows[layer].size(); ++expert) {
      const double load = rows[layer][expert];
      if (std::isfinite(load) && load >= 0.0) continue;
      throw InvalidArgument(path_ + ": loads[" + std::to_string(layer) + "][" +
                            std::to_string(expert) + "] is " + nlohmann::json(load).dump() +
                            ", must be finite and 0 or more");
    }
    layers_.push_back(static_cast<int32_t>(layer));
    values_.insert(values_.end(), rows[layer].begin(), rows[layer].end());
  }
  if (rows.front().size() > kMaxPlacementExperts) {
    throw InvalidArgument(path_ + " has " + std::to_string(rows.front().size()) +
                          " experts, at most " + std::to_string(kMaxPlacementExperts));
  }
  num_experts_ = static_cast<int32_t>(rows.front().size());
}

}  // namespace switchyard::tools
