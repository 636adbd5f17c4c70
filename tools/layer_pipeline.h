// One layer through the whole pipeline on one rank: route, sort, permute, experts, unpermute.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "switchyard/buffer.h"
#include "switchyard/permutation.h"
#include "switchyard/router.h"
#include "switchyard/trace.h"
#include "tools/run_results.h"

namespace switchyard::tools {

struct PipelineConfig {
  int64_t num_tokens = 0;    ///< of the trace
  int64_t batch_tokens = 0;  ///< at a time, above 0
  int num_runs = 1;          ///< times each batch is run; a stage's time is its shortest
  int32_t num_experts = 0;   ///< of the trace
  int32_t top_k = 0;         ///< of the trace's expert_ids; for layers without logits
  int64_t hidden_size = 0;
  DataType dtype = DataType::kBFloat16;  ///< float32 or bfloat16
  uint64_t seed = 0;
  Backend backend = Backend::kAuto;
  CpuThreads threads{};
};

/// Memory for one batch, reused from layer to layer.
class LayerPipeline {
 public:
  /// @param routing  how to route; none where all layers bring their expert_ids.
  LayerPipeline(const PipelineConfig& config, const std::optional<RouterConfig>& routing);

  [[nodiscard]] Backend backend() const { return permuter_.backend(); }
  [[nodiscard]] int64_t verified_values() const { return verified_values_; }

  /// Runs and verifies a layer.
  /// @throws Error  when a combined value differs from the dense computation, naming the first.
  LayerResults run(const TraceLayer& layer, VectorView<const float> selection_bias);

 private:
  void route_batch(const ConstTensorView& logits, VectorView<const float> bias, int64_t begin,
                   int64_t count, LayerResults& results);
  void exchange_batch(const TraceLayer& layer, int64_t begin, int64_t count, LayerResults& results);

  PipelineConfig config_;
  std::optional<Router> router_;
  Permuter permuter_;
  // A whole layer's choices.
  Buffer<int32_t> routed_ids_;
  Buffer<float> routed_weights_;
  MatrixView<const int32_t> expert_ids_;
  MatrixView<const float> gate_weights_;
  // One batch.
  Buffer<std::byte> workspace_;
  Buffer<std::byte> tokens_;
  Buffer<std::byte> sorted_;
  Buffer<std::byte> combined_;
  Buffer<int64_t> tokens_per_expert_;
  Buffer<int64_t> expert_offsets_;
  Buffer<int64_t> row_to_assignment_;
  Buffer<int64_t> assignment_to_row_;
  Buffer<int32_t> block_experts_;
  Buffer<PermutationTotals> totals_;
  Buffer<int64_t> degenerate_rows_;
  int64_t verified_values_ = 0;
};

}  // namespace switchyard::tools
