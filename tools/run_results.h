// What `switchyard run` found out, and how it is told: as a table and as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "switchyard/data_type.h"
#include "switchyard/router.h"
#include "switchyard/traffic.h"

namespace switchyard::tools {

/// Times of what was run: the stages of one rank or of several.
struct StageSeconds {
  double route = 0.0;
  double sort = 0.0;       ///< one rank
  double permute = 0.0;    ///< one rank
  double plan = 0.0;       ///< several
  double dispatch = 0.0;   ///< several
  double experts = 0.0;    ///< the stand-ins'; nobody's but this program's
  double unpermute = 0.0;  ///< one rank
  double combine = 0.0;    ///< several

  /// Everything but the experts.
  [[nodiscard]] double library() const {
    return route + sort + permute + plan + dispatch + unpermute + combine;
  }
};

struct Stage {
  const char* name;
  double StageSeconds::*seconds;
};
/// The stages of a run, in their order.
std::span<const Stage> stages_of(int num_ranks);

struct LayerResults {
  int32_t index = 0;
  std::vector<int64_t> tokens_per_expert;     ///< routed experts, appended shared ones not
  std::optional<int64_t> degenerate_rows;     ///< where the layer was routed here
  std::optional<double> mean_weight_entropy;  ///< where there are weights; in nats
  StageSeconds seconds;
  TrafficMatrix send_counts;  ///< rows between ranks, where there are several
};

struct RunResults {
  std::string trace;
  std::string model;  ///< from the trace's metadata, empty where it does not say
  int num_ranks = 1;
  std::string transport{};  ///< between ranks, where there are several
  int64_t num_tokens = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  std::optional<RouterConfig> routing;  ///< none where every layer's choices come from the trace
  std::string backend;
  int64_t hidden_size = 0;
  DataType dtype = DataType::kBFloat16;
  uint64_t seed = 0;
  int64_t verified_values = 0;
  std::vector<LayerResults> layers{};
};

nlohmann::ordered_json to_json(const RunResults& results);
void print(const RunResults& results, std::ostream& out);

}  // namespace switchyard::tools
