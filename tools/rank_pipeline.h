// One rank of the pipeline over several: route, plan, dispatch, experts, combine.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "switchyard/buffer.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/router.h"
#include "switchyard/trace.h"
#include "tools/layer_pipeline.h"
#include "tools/run_results.h"

namespace switchyard::tools {

/// Has its share of the trace's tokens, in contiguous blocks. Memory is reused from layer to layer.
class RankPipeline {
 public:
  /// Collective, as run() is.
  RankPipeline(const PipelineConfig& config, const std::optional<RouterConfig>& routing,
               Communicator& communicator);

  /// Of all ranks.
  [[nodiscard]] int64_t verified_values() const { return verified_values_; }

  /// Runs and verifies a layer with its experts where `placement` says.
  /// @return what all ranks did together, the same on every rank; a stage's time is the slowest's.
  /// @throws Error  when a combined value differs from the dense computation, naming the first.
  LayerResults run(const TraceLayer& layer, VectorView<const float> selection_bias,
                   const ExpertPlacement& placement);

 private:
  struct Batch {
    int64_t begin = 0;  ///< of the layer's tokens
    int64_t count = 0;
    MatrixView<const int32_t> expert_ids;
    MatrixView<const float> gate_weights;  ///< empty: 1
    int64_t degenerate_rows = 0;
  };

  Batch choices(const TraceLayer& layer, VectorView<const float> bias, int64_t index);
  void exchange(const TraceLayer& layer, const Batch& batch, ExpertExchange& exchange,
                AllToAllPlan& plan, LayerResults& results);
  void count(const ExpertPlacement& placement, const AllToAllPlan& plan,
             LayerResults& results) const;
  void gather(const TraceLayer& layer, LayerResults& results);
  template <typename T>
  [[nodiscard]] std::vector<T> gathered(const T* mine, std::size_t count) const;

  PipelineConfig config_;
  Communicator& communicator_;
  std::optional<Router> router_;
  int32_t num_slots_;
  int64_t first_token_;
  int64_t num_tokens_;   // of this rank
  int64_t max_tokens_;   // of any rank
  int64_t num_batches_;  // the same on every rank
  Buffer<int32_t> routed_ids_;
  Buffer<float> routed_weights_;
  Buffer<std::byte> tokens_;
  Buffer<std::byte> combined_;
  Buffer<std::byte> expert_rows_;
  Buffer<std::byte> workspace_;
  int64_t degenerate_rows_ = 0;
  int64_t verified_values_ = 0;
};

}  // namespace switchyard::tools
