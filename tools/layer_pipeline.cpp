#include "tools/layer_pipeline.h"

#include <algorithm>

#include "switchyard/load_statistics.h"
#include "tools/backend_copy.h"
#include "tools/pipeline_steps.h"
#include "tools/stand_in_experts.h"

namespace switchyard::tools {
namespace {

PermutationConfig permutation_config(const PipelineConfig& config,
                                     const std::optional<RouterConfig>& routing) {
  PermutationConfig permutation;
  permutation.num_experts = routing ? routing->num_expert_ids() : config.num_experts;
  permutation.top_k = routing ? routing->num_slots() : config.top_k;
  return permutation;
}

}  // namespace

LayerPipeline::LayerPipeline(const PipelineConfig& config,
                             const std::optional<RouterConfig>& routing)
    : config_(config),
      permuter_(permutation_config(config, routing), config.backend, config.threads) {
  config_.batch_tokens = std::min(config.batch_tokens, std::max<int64_t>(config.num_tokens, 1));
  const int64_t num_slots = permuter_.config().top_k;
  const int64_t batch = config_.batch_tokens;
  int64_t workspace_bytes = permuter_.workspace_bytes(batch);
  if (routing) {
    router_.emplace(*routing, config.backend, config.threads);
    workspace_bytes = std::max(workspace_bytes, router_->workspace_bytes(batch));
    routed_ids_ = Buffer<int32_t>(config.num_tokens * num_slots, backend());
    routed_weights_ = Buffer<float>(config.num_tokens * num_slots, backend());
  }
  const PermutationSizes sizes = permuter_.sizes(batch);
  const int64_t row_bytes = config.hidden_size * size_of(config.dtype);
  workspace_ = Buffer<std::byte>(workspace_bytes, backend());
  tokens_ = Buffer<std::byte>(batch * row_bytes, backend());
  sorted_ = Buffer<std::byte>(sizes.num_rows * row_bytes, backend());
  combined_ = Buffer<std::byte>(batch * row_bytes, backend());
  tokens_per_expert_ = Buffer<int64_t>(permuter_.config().num_experts, backend());
  expert_offsets_ = Buffer<int64_t>(permuter_.config().num_experts + 1, backend());
  row_to_assignment_ = Buffer<int64_t>(sizes.num_rows, backend());
  assignment_to_row_ = Buffer<int64_t>(batch * num_slots, backend());
  block_experts_ = Buffer<int32_t>(sizes.num_blocks, backend());
  totals_ = Buffer<PermutationTotals>(1, backend());
  degenerate_rows_ = Buffer<int64_t>(1, backend());
}

void LayerPipeline::route_batch(const ConstTensorView& logits, VectorView<const float> bias,
                                int64_t begin, int64_t count, LayerResults& results) {
  const int64_t num_slots = permuter_.config().top_k;
  const RoutingInputs inputs{.logits = rows_of(logits, begin, count), .selection_bias = bias};
  RoutingResult result;
  result.expert_ids = rows_of(routed_ids_.matrix(config_.num_tokens, num_slots), begin, count);
  result.gate_weights =
      rows_of(routed_weights_.matrix(config_.num_tokens, num_slots), begin, count);
  result.num_degenerate_rows = degenerate_rows_.data();
  Fastest route;
  for (int run = 0; run < config_.num_runs; ++run) {
    route.time([&] {
      router_->route(inputs, result, workspace_.bytes());
      synchronize(backend());
    });
  }
  results.seconds.route += route.seconds();
  results.degenerate_rows = results.degenerate_rows.value_or(0) + degenerate_rows_[0];
}

void LayerPipeline::exchange_batch(const TraceLayer& layer, int64_t begin, int64_t count,
                                   LayerResults& results) {
  const MatrixView<const int32_t> ids = rows_of(expert_ids_, begin, count);
  const MatrixView<const float> weights =
      gate_weights_.data == nullptr ? gate_weights_ : rows_of(gate_weights_, begin, count);
  const PermutationSizes sizes = permuter_.sizes(count);
  const Permutation permutation{tokens_per_expert_.view(),
                                expert_offsets_.view(),
                                {row_to_assignment_.data(), sizes.num_rows},
                                assignment_to_row_.matrix(count, ids.cols),
                                {block_experts_.data(), sizes.num_blocks},
                                totals_.data()};
  const int64_t hidden = config_.hidden_size;
  const int64_t row_bytes = hidden * size_of(config_.dtype);
  const TensorView tokens{tokens_.data(), config_.dtype, count, hidden, hidden};
  const TensorView sorted{sorted_.data(), config_.dtype, sizes.num_rows, hidden, hidden};
  const TensorView combined{combined_.data(), config_.dtype, count, hidden, hidden};
  fill_tokens(config_.seed, begin, tokens);

  Fastest sort, permute, experts, unpermute;
  for (int run = 0; run < config_.num_runs; ++run) {
    sort.time([&] {
      permuter_.sort(ids, weights, permutation, workspace_.bytes());
      synchronize(backend());
    });
    permute.time([&] {
      permuter_.permute(permutation, tokens_.matrix(count, row_bytes),
                        sorted_.matrix(sizes.num_rows, row_bytes));
      synchronize(backend());
    });
    experts.time([&] {
      apply_experts({permutation.tokens_per_expert, permutation.expert_offsets, {}}, sorted);
    });
    unpermute.time([&] {
      permuter_.unpermute(permutation, sorted, weights, combined);
      synchronize(backend());
    });
  }
  results.seconds.sort += sort.seconds();
  results.seconds.permute += permute.seconds();
  results.seconds.experts += experts.seconds();
  results.seconds.unpermute += unpermute.seconds();

  expect_dense(layer.index, begin, tokens, ids, weights, combined);
  verified_values_ += count * hidden;
  for (std::size_t expert = 0; expert < results.tokens_per_expert.size(); ++expert) {
    results.tokens_per_expert[expert] += tokens_per_expert_[static_cast<int64_t>(expert)];
  }
}

LayerResults LayerPipeline::run(const TraceLayer& layer, VectorView<const float> selection_bias) {
  LayerResults results;
  results.index = layer.index;
  results.tokens_per_expert.resize(static_cast<std::size_t>(config_.num_experts));
  const bool routed = layer.router_logits.data != nullptr;
  const int64_t num_slots = permuter_.config().top_k;
  const BackendTensor logits(layer.router_logits, backend());
  const BackendCopy<float> bias(selection_bias, backend());
  const BackendCopy<int32_t> trace_ids(layer.expert_ids, backend());
  const BackendCopy<float> trace_weights(layer.gate_weights, backend());
  if (routed) {
    results.degenerate_rows = 0;
    expert_ids_ = std::as_const(routed_ids_).matrix(config_.num_tokens, num_slots);
    gate_weights_ = std::as_const(routed_weights_).matrix(config_.num_tokens, num_slots);
  } else {
    expert_ids_ = trace_ids.matrix();
    gate_weights_ = trace_weights.matrix();
  }
  for (int64_t begin = 0; begin < config_.num_tokens; begin += config_.batch_tokens) {
    const int64_t count = std::min(config_.batch_tokens, config_.num_tokens - begin);
    if (routed) route_batch(logits.view(), bias.vector(), begin, count, results);
    exchange_batch(layer, begin, count, results);
  }
  if (gate_weights_.data != nullptr) {
    // Appended shared experts weigh the same for every token and would only blur the number.
    const int64_t slots = routed ? router_->config().top_k : gate_weights_.cols;
    results.mean_weight_entropy = mean_weight_entropy(
        {gate_weights_.data, gate_weights_.rows, slots, gate_weights_.row_stride});
  }
  return results;
}

}  // namespace switchyard::tools
