#include "tools/token_selector.h"

namespace switchyard::tools {

TokenSelector::TokenSelector(const RouterConfig& config)
    : router_(config, Backend::kCpu, CpuThreads{.num_threads = 1}),
      expert_ids_(static_cast<size_t>(config.top_k)),
      gate_weights_(expert_ids_.size()),
      workspace_(static_cast<size_t>(router_.workspace_bytes(1))) {}

TokenSelector::Choice TokenSelector::select(const ConstTensorView& logits, int64_t token,
                                            VectorView<const float> bias,
                                            const ResidencyPreference& preference) {
  const auto* const rows = static_cast<const std::byte*>(logits.data);
  const int64_t row_bytes = logits.row_stride * size_of(logits.dtype);
  RoutingInputs inputs;
  inputs.logits = {rows + token * row_bytes, logits.dtype, 1, logits.cols, logits.row_stride};
  inputs.selection_bias = bias;
  inputs.residency = preference;
  RoutingResult result;
  const auto top_k = static_cast<int64_t>(expert_ids_.size());
  result.expert_ids = {expert_ids_.data(), 1, top_k};
  result.gate_weights = MatrixView<float>(gate_weights_.data(), 1, top_k);
  result.sacrificed_mass = {&sacrificed_mass_, 1};
  router_.route(inputs, result, workspace_);
  return {{expert_ids_.data(), top_k}, sacrificed_mass_};
}

}  // namespace switchyard::tools
