// The options that say how fast links are, for predictions.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "switchyard/exchange_cost.h"

namespace switchyard::tools {

class LinkOptions {
 public:
  /// Adds the options to a subcommand; this object must outlive its parsing.
  void add_to(CLI::App& command);

  /// @param ranks_per_node  1 or more.
  /// @throws InvalidArgument  for a link that is not LATENCY_US:GBPS or is refused by the model.
  /// @throws IoError          when results cannot be read.
  [[nodiscard]] ExchangeCostModel model(int32_t ranks_per_node) const;

 private:
  std::string node_link_;
  std::string network_link_;
  std::string node_results_;
  std::string network_results_;
  bool shares_ = false;
};

nlohmann::ordered_json to_json(const ExchangeCostModel& model);

}  // namespace switchyard::tools
