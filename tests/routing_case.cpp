#include "tests/routing_case.h"

#include <bit>
#include <cstring>
#include <iomanip>
#include <limits>
#include <sstream>

#include "switchyard/router_losses.h"
#include "tests/guarded.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

BackendVector<float> make_bias(const RoutingCase& c) {
  if (!c.with_bias) return {};
  RandomStream random(c.seed ^ 0xb1a5);
  BackendVector<float> bias;
  // Correction biases are small; now and then one that nothing can follow.
  const bool hostile = random.chance(15);
  constexpr float kHostile[] = {
      std::numeric_limits<float>::infinity(),  -std::numeric_limits<float>::infinity(),
      std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::max(),
      std::numeric_limits<float>::lowest(),    -0.0f};
  for (int32_t e = 0; e < c.config.num_experts; ++e) {
    bias.push_back(hostile && random.chance(20) ? random.pick(kHostile)
                                                : static_cast<float>(0.1 * random.normal()));
  }
  return bias;
}

BackendVector<uint8_t> random_flags(RandomStream& random, int64_t size, int percent_set) {
  BackendVector<uint8_t> flags;
  for (int64_t i = 0; i < size; ++i) {
    const bool is_set = random.chance(percent_set);
    flags.push_back(is_set ? static_cast<uint8_t>(1 + random.below(255)) : uint8_t{0});
  }
  return flags;
}

BackendVector<uint8_t> make_mask(bool wanted, int64_t size, uint64_t seed) {
  if (!wanted) return {};
  RandomStream random(seed);
  const int percent = random.chance(20) ? 3 : 75;  // at times almost nothing is left
  return random_flags(random, size, percent);
}

BackendVector<uint8_t> make_resident(const RoutingCase& c) {
  if (c.percent_resident == 0) return {};
  RandomStream random(c.seed ^ 0x4e51);
  return random_flags(random, c.config.num_experts, c.percent_resident);
}

template <typename T>
std::string first_difference(const char* what, int64_t num_slots, const std::vector<T>& expected,
                             const std::vector<T>& actual) {
  if (expected.size() != actual.size()) return std::string(what) + " differ in size";
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == actual[i]) continue;
    std::ostringstream text;
    text << what << "[";
    if (num_slots > 0) {
      text << "token " << static_cast<int64_t>(i) / num_slots << ", slot "
           << static_cast<int64_t>(i) % num_slots;
    } else {
      text << i;
    }
    text << "] is " << actual[i] << ", must be " << expected[i];
    if constexpr (std::is_same_v<T, uint32_t>) {
      text << " (as float32 " << std::setprecision(9) << std::bit_cast<float>(actual[i]) << " and "
           << std::bit_cast<float>(expected[i]) << ")";
    }
    return text.str();
  }
  return "";
}

std::string describe(const ResidencyPreference& residency, int percent_resident) {
  if (percent_resident == 0) return "";
  std::ostringstream text;
  text << " resident=" << percent_resident << "% bonus=" << residency.bonus
       << (residency.bonus_scale == BonusScale::kSpread ? " spreads" : "")
       << " tau=" << residency.max_swap_loss << " epsilon=" << residency.max_sacrificed_share
       << " protected=" << residency.num_protected;
  return text.str();
}

}  // namespace

std::string describe(const RoutingCase& c) {
  constexpr const char* kScores[] = {"softmax", "sigmoid", "sqrt_softplus", "identity"};
  constexpr const char* kGroupScores[] = {"max", "top2_sum", "topk_sum"};
  std::ostringstream text;
  text << "T=" << c.num_tokens << " E=" << c.config.num_experts << " k=" << c.config.top_k << ' '
       << kScores[static_cast<size_t>(c.config.score_function)]
       << (c.config.renormalize ? " renormalised" : " raw")
       << " scale=" << c.config.routed_scaling_factor << " groups=" << c.config.top_groups << '/'
       << c.config.num_groups << ' ' << kGroupScores[static_cast<size_t>(c.config.group_score)]
       << " shared=" << c.config.num_shared_experts << " logits=" << name_of(c.distribution) << ' '
       << name_of(c.dtype) << " weights=" << name_of(c.weight_dtype) << " bias=" << c.with_bias
       << " token_mask=" << c.with_token_mask << " expert_mask=" << c.with_expert_mask
       << describe(c.residency, c.percent_resident) << " padding=" << c.logits_padding << ','
       << c.output_padding << " losses=" << c.with_losses << " counts=" << c.with_counts
       << " seed=" << c.seed;
  return text.str();
}

RoutingBatch::RoutingBatch(const RoutingCase& c)
    : num_tokens_(c.num_tokens),
      logits_(c.distribution, c.dtype, c.num_tokens, c.config.num_experts,
              c.config.num_experts + c.logits_padding, c.seed),
      selection_bias_(make_bias(c)),
      token_mask_(make_mask(c.with_token_mask, c.num_tokens, c.seed ^ 0x70cef)),
      expert_mask_(make_mask(c.with_expert_mask, c.config.num_experts, c.seed ^ 0xe59e7)),
      residency_(c.residency),
      resident_(make_resident(c)) {}

RoutingInputs RoutingBatch::inputs(int64_t begin, int64_t end) const {
  RoutingInputs inputs;
  inputs.logits = logits_.view();
  inputs.logits.rows = end - begin;
  if (begin > 0) {
    inputs.logits.data = static_cast<const std::byte*>(inputs.logits.data) +
                         begin * inputs.logits.row_stride * size_of(inputs.logits.dtype);
  }
  inputs.selection_bias = {selection_bias_.data(), static_cast<int64_t>(selection_bias_.size())};
  inputs.expert_mask = {expert_mask_.data(), static_cast<int64_t>(expert_mask_.size())};
  if (!token_mask_.empty()) inputs.token_mask = {token_mask_.data() + begin, end - begin};
  inputs.residency = residency_;
  inputs.residency.resident_experts = {resident_.data(), static_cast<int64_t>(resident_.size())};
  return inputs;
}

RoutedBatch route_guarded(const RoutingCase& c, const RoutingInputs& inputs,
                          int64_t workspace_bytes, const RouteCall& call) {
  const int64_t rows = inputs.logits.rows;
  const int64_t slots = c.config.num_slots();
  const int64_t stride = slots + c.output_padding;
  Guarded<int32_t> ids(rows, slots, stride);
  Guarded<float> weights(rows, slots, stride);
  Guarded<BFloat16> narrow_weights(rows, slots, stride);
  Guarded<int64_t> counts(1, c.config.num_expert_ids(), c.config.num_expert_ids());
  const int64_t loss_size = router_loss_sums_size(c.config.num_experts);
  Guarded<int64_t> losses(1, loss_size, loss_size);
  Guarded<int64_t> degenerate(1, 1, 1);
  Guarded<float> sacrificed(1, rows, rows);
  Guarded<std::byte> workspace(1, workspace_bytes, workspace_bytes);

  RoutingResult result;
  result.expert_ids = ids.matrix();
  const bool narrow = c.weight_dtype == DataType::kBFloat16;
  result.gate_weights = narrow ? TensorView(narrow_weights.matrix()) : TensorView(weights.matrix());
  if (c.with_counts) result.tokens_per_expert = counts.vector();
  if (c.with_counts) result.num_degenerate_rows = degenerate.vector().data;
  if (c.with_losses) result.loss_sums = losses.vector();
  if (c.percent_resident > 0) result.sacrificed_mass = sacrificed.vector();
  call(result, {workspace.vector().data, static_cast<size_t>(workspace_bytes)});
  finish_backends();

  RoutedBatch out;
  out.num_slots = slots;
  out.expert_ids = ids.dense();
  if (narrow) {
    for (const BFloat16 weight : narrow_weights.dense()) out.gate_weights.push_back(weight.bits);
  } else {
    for (const float weight : weights.dense()) {
      out.gate_weights.push_back(std::bit_cast<uint32_t>(weight));
    }
  }
  if (c.with_counts) out.tokens_per_expert = counts.dense();
  if (c.with_counts) out.num_degenerate_rows = degenerate.dense()[0];
  if (c.with_losses) out.loss_sums = losses.dense();
  if (c.percent_resident > 0) {
    for (const float mass : sacrificed.dense()) {
      out.sacrificed_mass.push_back(std::bit_cast<uint32_t>(mass));
    }
  }
  out.guards_intact = ids.intact() && weights.intact() && narrow_weights.intact() &&
                      counts.intact() && losses.intact() && degenerate.intact() &&
                      sacrificed.intact() && workspace.intact();
  return out;
}

RoutedBatch route(const Router& router, const RoutingCase& routing_case,
                  const RoutingInputs& inputs) {
  return route_guarded(routing_case, inputs, router.workspace_bytes(inputs.logits.rows),
                       [&](const RoutingResult& result, std::span<std::byte> workspace) {
                         router.route(inputs, result, workspace);
                       });
}

RoutedBatch route(const Router& router, const RoutingCase& routing_case) {
  const RoutingBatch batch(routing_case);
  return route(router, routing_case, batch.inputs());
}

std::string difference(const RoutedBatch& expected, const RoutedBatch& actual) {
  if (!actual.guards_intact) return "a guard word was overwritten";
  const int64_t slots = expected.num_slots;
  std::string text = first_difference("expert_ids", slots, expected.expert_ids, actual.expert_ids);
  if (text.empty()) {
    text = first_difference("gate_weights", slots, expected.gate_weights, actual.gate_weights);
  }
  if (text.empty()) {
    text = first_difference("tokens_per_expert", 0, expected.tokens_per_expert,
                            actual.tokens_per_expert);
  }
  if (text.empty() && expected.num_degenerate_rows != actual.num_degenerate_rows) {
    text = "num_degenerate_rows is " + std::to_string(actual.num_degenerate_rows) + ", must be " +
           std::to_string(expected.num_degenerate_rows);
  }
  if (text.empty()) {
    text = first_difference("loss_sums", 0, expected.loss_sums, actual.loss_sums);
  }
  if (text.empty()) {
    text = first_difference("sacrificed_mass", 0, expected.sacrificed_mass, actual.sacrificed_mass);
  }
  return text;
}

}  // namespace switchyard::test
