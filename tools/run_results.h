// What `switchyard run` found out, and how it is told: as a table and as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "switchyard/data_type.h"
#include "switchyard/router.h"

namespace switchyard::tools {

struct StageSeconds {
  double route = 0.0;
  double sort = 0.0;
  double permute = 0.0;
  double experts = 0.0;  ///< the stand-ins'; nobody's but this program's
  double unpermute = 0.0;

  /// Everything but the experts.
  [[nodiscard]] double library() const { return route + sort + permute + unpermute; }
};

struct LayerResults {
  int32_t index = 0;
  std::vector<int64_t> tokens_per_expert;     ///< routed experts, appended shared ones not
  std::optional<int64_t> degenerate_rows;     ///< where the layer was routed here
  std::optional<double> mean_weight_entropy;  ///< where there are weights; in nats
  StageSeconds seconds;
};

struct RunResults {
  std::string trace;
  std::string model;  ///< from the trace's metadata, empty where it does not say
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
