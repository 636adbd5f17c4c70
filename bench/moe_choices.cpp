#include "bench/moe_choices.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "switchyard/model_presets.h"
#include "switchyard/router.h"
#include "switchyard/trace.h"
#include "tests/random_stream.h"

namespace switchyard::bench {
namespace {

uint64_t mix(uint64_t x) { return test::RandomStream(x).bits(); }

/// In (0, 1).
double uniform(uint64_t bits) { return (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52; }

const TraceLayer& layer_of(const Trace& trace, int32_t index) {
  if (index < 0) return trace.layers().front();
  for (const TraceLayer& layer : trace.layers()) {
    if (layer.index == index) return layer;
  }
  throw InvalidArgument("--layer is " + std::to_string(index) + ", " + trace.file().source_name() +
                        " has no such layer");
}

/// Softmax over the best logits is what a trace with nothing but logits is taken to mean: only the
/// choice counts here, and every score function of a logit alone makes the same.
std::vector<int32_t> routed(const Trace& trace, const TraceLayer& layer) {
  if (trace.top_k() == 0) {
    throw InvalidArgument(trace.file().source_name() + " does not say top_k");
  }
  const Router router({.num_experts = trace.num_experts(), .top_k = trace.top_k()}, Backend::kCpu);
  std::vector<int32_t> ids(static_cast<std::size_t>(trace.num_tokens() * trace.top_k()));
  std::vector<float> weights(ids.size());
  Buffer<std::byte> workspace(router.workspace_bytes(trace.num_tokens()));
  RoutingResult result;
  result.expert_ids = {ids.data(), trace.num_tokens(), trace.top_k()};
  result.gate_weights = MatrixView<float>(weights.data(), trace.num_tokens(), trace.top_k());
  router.route({.logits = layer.router_logits, .selection_bias = layer.correction_bias}, result,
               workspace.bytes());
  return ids;
}

}  // namespace

MoeChoices::MoeChoices(const ChoiceOptions& options) : seed_(mix(options.seed)) {
  if (!options.trace.empty()) {
    read(options);
    return;
  }
  const ModelPreset& preset = find_model_preset(options.model);
  num_experts_ = preset.num_experts;
  top_k_ = preset.top_k;
  if (!(options.zipf >= 0.0) || options.zipf > 10.0) {
    throw InvalidArgument("--zipf is " + std::to_string(options.zipf) + ", must be in [0, 10]");
  }
  description_ = options.model + ", zipf " + std::to_string(options.zipf).substr(0, 4);
  // Popular experts are nobody's neighbours.
  std::vector<std::size_t> places(static_cast<std::size_t>(num_experts_));
  std::iota(places.begin(), places.end(), std::size_t{0});
  for (std::size_t i = places.size(); i > 1; --i) {
    std::swap(places[i - 1], places[mix(seed_ + i) % i]);
  }
  for (const std::size_t place : places) {
    log_popularities_.push_back(-options.zipf * std::log(static_cast<double>(place + 1)));
  }
}

void MoeChoices::read(const ChoiceOptions& options) {
  const Trace trace = Trace::open(options.trace);
  const TraceLayer& layer = layer_of(trace, options.layer);
  num_experts_ = trace.num_experts();
  description_ = options.trace + ", layer " + std::to_string(layer.index);
  if (trace.num_tokens() == 0) throw InvalidArgument(options.trace + " has no tokens");
  if (layer.expert_ids.data != nullptr) {
    top_k_ = static_cast<int32_t>(layer.expert_ids.cols);
    const MatrixView<const int32_t>& ids = layer.expert_ids;
    for (int64_t token = 0; token < ids.rows; ++token) {
      trace_ids_.insert(trace_ids_.end(), ids.row(token), ids.row(token) + ids.cols);
    }
    return;
  }
  trace_ids_ = routed(trace, layer);
  top_k_ = trace.top_k();
}

std::vector<int32_t> MoeChoices::tokens(int64_t first, int64_t count) const {
  std::vector<int32_t> ids;
  ids.reserve(static_cast<std::size_t>(count * top_k_));
  if (!trace_ids_.empty()) {
    const int64_t length = static_cast<int64_t>(trace_ids_.size()) / top_k_;
    for (int64_t token = first; token < first + count; ++token) {
      const auto begin = trace_ids_.begin() + token % length * top_k_;
      ids.insert(ids.end(), begin, begin + top_k_);
    }
    return ids;
  }
  // The largest of log p + Gumbel noise are a sample without replacement. (Vieira 2014, Gumbel-max
  // trick and weighted reservoir sampling.)
  std::vector<std::pair<double, int32_t>> keys(static_cast<std::size_t>(num_experts_));
  for (int64_t token = first; token < first + count; ++token) {
    const uint64_t row = mix(seed_ ^ static_cast<uint64_t>(token));
    for (int32_t expert = 0; expert < num_experts_; ++expert) {
      const auto index = static_cast<std::size_t>(expert);
      const double noise = -std::log(-std::log(uniform(mix(row + index))));
      keys[index] = {-(log_popularities_[index] + noise), expert};
    }
    std::partial_sort(keys.begin(), keys.begin() + top_k_, keys.end());
    for (int32_t slot = 0; slot < top_k_; ++slot) {
      ids.push_back(keys[static_cast<std::size_t>(slot)].second);
    }
  }
  return ids;
}

}  // namespace switchyard::bench
