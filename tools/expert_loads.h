// What placement is planned from: the experts that a trace's tokens choose, or loads in a JSON
// file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/tensor_view.h"
#include "switchyard/trace.h"
#include "tools/routed_layer.h"
#include "tools/routing_options.h"

namespace switchyard::tools {

class ExpertLoads {
 public:
  /// A trace's layers, routed where they bring logits, or `{"loads": [[E numbers], …]}`, a row for
  /// each layer.
  /// @throws IoError          when the file is neither.
  /// @throws InvalidArgument  when options do not fit what it holds, or rows are of different
  ///                          lengths.
  ExpertLoads(const std::string& path, const RoutingOptions& routing);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int32_t num_experts() const { return num_experts_; }
  /// Number of each layer as the file has it.
  [[nodiscard]] const std::vector<int32_t>& layers() const { return layers_; }
  [[nodiscard]] int64_t num_layers() const { return static_cast<int64_t>(layers_.size()); }
  /// 0 for a file of loads.
  [[nodiscard]] int64_t num_tokens() const { return num_tokens_; }

  /// [num_layers, num_experts]
  [[nodiscard]] MatrixView<const double> view() const {
    return {values_.data(), num_layers(), num_experts_};
  }
  /// Assignments of tokens [begin, end) of a trace, [num_layers, num_experts].
  [[nodiscard]] std::vector<int64_t> counts(int64_t begin, int64_t end) const;

 private:
  void read_trace(const RoutingOptions& routing);
  void read_loads(const RoutingOptions& routing);

  std::string path_;
  int32_t num_experts_ = 0;
  int64_t num_tokens_ = 0;
  std::vector<int32_t> layers_;
  std::vector<double> values_;
  std::unique_ptr<Trace> trace_;
  std::vector<RoutedLayer> routed_;
  std::vector<MatrixView<const int32_t>> ids_;
};

}  // namespace switchyard::tools
