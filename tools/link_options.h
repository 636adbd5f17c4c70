// The options that say how fast links are, for predictions.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "switchyard/exchange_cost.h"

namespace switchyard::tools {

/// Links as given, or as measured all-to-alls explain them.
class Links {
 public:
  Links() = default;

  /// By all that was measured.
  [[nodiscard]] const ExchangeCostModel& model() const { return model_; }
  /// As one exchange sees them, by what was measured of about its size.
  /// @param row_passes  counts where ranks share a node's bandwidth.
  /// @throws InvalidArgument  for results that no link explains.
  [[nodiscard]] ExchangeCostModel model_for(const TrafficMatrix& traffic, int64_t row_bytes,
                                            double row_passes) const;
  [[nodiscard]] RowWay row_way() const { return row_way_; }

 private:
  friend class LinkOptions;

  /// What alltoall_perf wrote to a file.
  struct Measured {
    std::string path;
    std::vector<ExchangeTiming> timings;
  };

  [[nodiscard]] static LinkCost fit(const Measured& measured, bool shares);

  ExchangeCostModel model_;
  RowWay row_way_ = RowWay::kLent;
  Measured node_;
  Measured network_;
};

class LinkOptions {
 public:
  /// Adds the options to a subcommand; this object must outlive its parsing.
  void add_to(CLI::App& command);

  /// Reads what the options name.
  /// @param ranks_per_node  1 or more.
  /// @throws InvalidArgument  for a link that is not LATENCY_US:GBPS or is refused by the model, or
  ///                          results that no link explains.
  /// @throws IoError          when results cannot be read.
  [[nodiscard]] Links links(int32_t ranks_per_node) const;

 private:
  std::string node_link_;
  std::string network_link_;
  std::string node_results_;
  std::string network_results_;
  bool shares_ = false;
  std::string row_way_ = "lent";
};

nlohmann::ordered_json to_json(const ExchangeCostModel& model);

}  // namespace switchyard::tools
