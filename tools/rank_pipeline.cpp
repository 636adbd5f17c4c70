#include "tools/rank_pipeline.h"

#include <algorithm>
#include <utility>

#include "switchyard/global_plan.h"
#include "switchyard/load_statistics.h"
#include "tools/pipeline_steps.h"
#include "tools/stand_in_experts.h"

namespace switchyard::tools {
namespace {

void grow(Buffer<std::byte>& buffer, int64_t bytes) {
  if (buffer.size() < bytes) buffer = Buffer<std::byte>(bytes);
}

}  // namespace

RankPipeline::RankPipeline(const PipelineConfig& config, const std::optional<RouterConfig>& routing,
                           Communicator& communicator)
    : config_(config),
      communicator_(communicator),
      num_slots_(routing ? routing->num_slots() : config.top_k) {
  const std::vector<int64_t> offsets = contiguous_offsets(config.num_tokens, communicator.size());
  const auto rank = static_cast<std::size_t>(communicator.rank());
  first_token_ = offsets[rank];
  num_tokens_ = offsets[rank + 1] - offsets[rank];
  max_tokens_ = offsets[1];
  const int64_t batch = std::max<int64_t>(1, std::min(config.batch_tokens, max_tokens_));
  config_.batch_tokens = batch;
  num_batches_ = (max_tokens_ + batch - 1) / batch;
  if (routing) {
    router_.emplace(*routing, config.backend, config.threads);
    routed_ids_ = Buffer<int32_t>(num_tokens_ * num_slots_);
    routed_weights_ = Buffer<float>(num_tokens_ * num_slots_);
    workspace_ = Buffer<std::byte>(router_->workspace_bytes(batch));
  }
  const int64_t row_bytes = config.hidden_size * size_of(config.dtype);
  tokens_ = Buffer<std::byte>(batch * row_bytes);
  combined_ = Buffer<std::byte>(batch * row_bytes);
}

RankPipeline::Batch RankPipeline::choices(const TraceLayer& layer, VectorView<const float> bias,
                                          int64_t index) {
  const int64_t local = std::min(num_tokens_, index * config_.batch_tokens);
  Batch batch;
  batch.begin = first_token_ + local;
  batch.count = std::min(num_tokens_ - local, config_.batch_tokens);
  if (!router_) {
    batch.expert_ids = rows_of(layer.expert_ids, batch.begin, batch.count);
    if (layer.gate_weights.data != nullptr) {
      batch.gate_weights = rows_of(layer.gate_weights, batch.begin, batch.count);
    }
    return batch;
  }
  RoutingResult result;
  result.expert_ids = rows_of(routed_ids_.matrix(num_tokens_, num_slots_), local, batch.count);
  result.gate_weights =
      rows_of(routed_weights_.matrix(num_tokens_, num_slots_), local, batch.count);
  result.num_degenerate_rows = &batch.degenerate_rows;
  router_->route(
      {.logits = rows_of(layer.router_logits, batch.begin, batch.count), .selection_bias = bias},
      result, workspace_.bytes());
  batch.expert_ids = result.expert_ids;
  batch.gate_weights =
      rows_of(std::as_const(routed_weights_).matrix(num_tokens_, num_slots_), local, batch.count);
  return batch;
}

void RankPipeline::exchange(const TraceLayer& layer, const Batch& batch, ExpertExchange& exchange,
                            AllToAllPlan& plan, LayerResults& results) {
  const int64_t hidden = config_.hidden_size;
  const int64_t row_bytes = hidden * size_of(config_.dtype);
  const TensorView tokens{tokens_.data(), config_.dtype, batch.count, hidden, hidden};
  const TensorView combined{combined_.data(), config_.dtype, batch.count, hidden, hidden};
  fill_tokens(config_.seed, batch.begin, tokens);
  const ExpertPlacement& placement = exchange.config().placement;
  const auto first_slot = static_cast<std::size_t>(
      placement.slot_offsets()[static_cast<std::size_t>(communicator_.rank())]);

  Fastest planning, dispatch, experts, combine;
  for (int run = 0; run < config_.num_runs; ++run) {
    grow(workspace_, exchange.plan_workspace_bytes());
    communicator_.barrier("run");
    planning.time([&] { exchange.plan(batch.expert_ids, plan, workspace_.bytes()); });

    const int64_t num_rows = plan.num_expert_rows();
    grow(expert_rows_, num_rows * row_bytes);
    grow(workspace_, std::max(exchange.dispatch_workspace_bytes(plan, row_bytes),
                              exchange.combine_workspace_bytes(plan, hidden, config_.dtype)));
    communicator_.barrier("run");
    dispatch.time([&] {
      exchange.start_dispatch(plan,
                              {std::as_const(tokens_).matrix(batch.count, row_bytes),
                               expert_rows_.matrix(num_rows, row_bytes)},
                              {}, workspace_.bytes());
      exchange.finish_dispatch();
    });
    const TensorView rows{expert_rows_.data(), config_.dtype, num_rows, hidden, hidden};
    experts.time([&] {
      apply_experts({plan.tokens_per_expert(), plan.expert_offsets(),
                     placement.slot_to_expert().subspan(
                         first_slot, static_cast<std::size_t>(plan.tokens_per_expert().size))},
                    rows);
    });
    communicator_.barrier("run");
    combine.time([&] {
      exchange.start_combine(plan, {rows, batch.gate_weights, combined}, workspace_.bytes());
      exchange.finish_combine();
    });
  }
  results.seconds.plan += planning.seconds();
  results.seconds.dispatch += dispatch.seconds();
  results.seconds.experts += experts.seconds();
  results.seconds.combine += combine.seconds();
  expect_dense(layer.index, batch.begin, tokens, batch.expert_ids, batch.gate_weights, combined);
  count(placement, plan, results);
}

void RankPipeline::count(const ExpertPlacement& placement, const AllToAllPlan& plan,
                         LayerResults& results) const {
  const MatrixView<const int64_t> counts = plan.slot_counts();
  results.send_counts = traffic_of(placement, counts);
  for (int32_t slot = 0; slot < placement.num_slots(); ++slot) {
    const int32_t expert = placement.slot_to_expert()[static_cast<std::size_t>(slot)];
    if (expert < 0 || expert >= config_.num_experts) continue;
    for (int64_t source = 0; source < counts.rows; ++source) {
      results.tokens_per_expert[static_cast<std::size_t>(expert)] += counts.row(source)[slot];
    }
  }
}

template <typename T>
std::vector<T> RankPipeline::gathered(const T* mine, std::size_t count) const {
  std::vector<T> all(count * static_cast<std::size_t>(communicator_.size()));
  communicator_.all_gather("run", std::as_bytes(std::span(mine, count)),
                           std::as_writable_bytes(std::span(all)));
  return all;
}

void RankPipeline::gather(const TraceLayer& layer, LayerResults& results) {
  StageSeconds& seconds = results.seconds;
  for (const StageSeconds& theirs : gathered(&seconds, 1)) {
    for (double StageSeconds::*const stage :
         {&StageSeconds::route, &StageSeconds::plan, &StageSeconds::dispatch,
          &StageSeconds::experts, &StageSeconds::combine}) {
      seconds.*stage = std::max(seconds.*stage, theirs.*stage);
    }
  }
  MatrixView<const float> weights = layer.gate_weights;
  std::vector<float> all_weights;
  if (router_) {
    results.degenerate_rows = 0;
    for (const int64_t rows : gathered(&degenerate_rows_, 1)) *results.degenerate_rows += rows;
    // Blocks of one length travel, the last token of which not every rank has.
    std::vector<float> mine(static_cast<std::size_t>(max_tokens_ * num_slots_));
    std::copy(routed_weights_.begin(), routed_weights_.end(), mine.begin());
    const std::vector<float> blocks = gathered(mine.data(), mine.size());
    const std::vector<int64_t> offsets =
        contiguous_offsets(config_.num_tokens, communicator_.size());
    for (std::size_t rank = 0; rank + 1 < offsets.size(); ++rank) {
      const auto begin = blocks.begin() + static_cast<std::ptrdiff_t>(rank * mine.size());
      all_weights.insert(all_weights.end(), begin,
                         begin + (offsets[rank + 1] - offsets[rank]) * num_slots_);
    }
    weights = {all_weights.data(), config_.num_tokens, router_->config().top_k, num_slots_};
  }
  if (weights.data != nullptr) results.mean_weight_entropy = mean_weight_entropy(weights);
}

LayerResults RankPipeline::run(const TraceLayer& layer, VectorView<const float> selection_bias,
                               const ExpertPlacement& placement) {
  LayerResults results;
  results.index = layer.index;
  results.tokens_per_expert.resize(static_cast<std::size_t>(config_.num_experts));
  results.send_counts = TrafficMatrix(communicator_.size());
  degenerate_rows_ = 0;
  ExpertExchange between(
      {.placement = placement, .top_k = num_slots_, .max_tokens = config_.batch_tokens},
      communicator_, config_.threads);
  AllToAllPlan plan = between.make_plan();
  for (int64_t index = 0; index < num_batches_; ++index) {
    Batch batch;
    Fastest route;
    if (router_) grow(workspace_, router_->workspace_bytes(config_.batch_tokens));
    communicator_.barrier("run");
    for (int run = 0; run < (router_ ? config_.num_runs : 1); ++run) {
      route.time([&] { batch = choices(layer, selection_bias, index); });
    }
    if (router_) results.seconds.route += route.seconds();
    degenerate_rows_ += batch.degenerate_rows;
    exchange(layer, batch, between, plan, results);
  }
  verified_values_ += config_.num_tokens * config_.hidden_size;
  gather(layer, results);
  return results;
}

}  // namespace switchyard::tools
