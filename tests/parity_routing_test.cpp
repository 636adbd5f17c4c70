// Routing gives what the systems that this library re-creates give, or what they should have given.
#include <gtest/gtest.h>

#include <cmath>

#include "switchyard/errors.h"
#include "switchyard/expert_choice.h"
#include "switchyard/router.h"
#include "switchyard/router_losses.h"
#include "tests/parity_cases.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

struct Routed {
  std::vector<int32_t> expert_ids;
  std::vector<float> gate_weights;
  std::vector<int64_t> tokens_per_expert;
  std::vector<int64_t> loss_sums;
};

/// Routes dense float32 rows, `num_columns` wide, on `backend`.
Routed route(const RouterConfig& config, Backend backend, const std::vector<float>& logits,
             int64_t num_columns, const std::vector<float>& bias = {}) {
  const int64_t num_tokens = static_cast<int64_t>(logits.size()) / num_columns;
  Routed out;
  out.expert_ids.resize(static_cast<size_t>(num_tokens * config.num_slots()));
  out.gate_weights.resize(out.expert_ids.size());
  out.tokens_per_expert.resize(static_cast<size_t>(config.num_expert_ids()));
  out.loss_sums.resize(static_cast<size_t>(router_loss_sums_size(config.num_experts)));
  RoutingInputs inputs;
  inputs.logits = MatrixView<const float>(logits.data(), num_tokens, num_columns);
  inputs.selection_bias = {bias.data(), static_cast<int64_t>(bias.size())};
  RoutingResult result;
  result.expert_ids = {out.expert_ids.data(), num_tokens, config.num_slots()};
  result.gate_weights = MatrixView<float>(out.gate_weights.data(), num_tokens, config.num_slots());
  result.tokens_per_expert = {out.tokens_per_expert.data(), config.num_expert_ids()};
  result.loss_sums = {out.loss_sums.data(), static_cast<int64_t>(out.loss_sums.size())};
  const Router router(config, backend);
  std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(num_tokens)));
  router.route(inputs, result, workspace);
  return out;
}

RouterLosses losses_of(const Routed& routed) {
  return finalize_router_losses(
      {routed.loss_sums.data(), static_cast<int64_t>(routed.loss_sums.size())},
      {routed.tokens_per_expert.data(), static_cast<int64_t>(routed.tokens_per_expert.size())});
}

std::vector<float> flat(const json& rows) {
  std::vector<float> out;
  for (const json& row : rows) {
    for (const float value : parity_floats(row)) out.push_back(value);
  }
  return out;
}

RouterConfig identity_config(const json& inputs) {
  return {.num_experts = inputs.at("num_experts"),
          .top_k = inputs.at("top_k"),
          .score_function = ScoreFunction::kIdentity};
}

/// Residents get the bonus as a selection bias; a router that is not aware of memory gives none.
std::vector<float> residency_bonus(const json& inputs) {
  std::vector<float> bias(inputs.at("num_experts").get<size_t>(), 0.0f);
  if (!inputs.value("memory_aware", true)) return {};
  for (const size_t expert : inputs.value("resident", std::vector<size_t>())) {
    bias[expert] = parity_float(inputs.at("cache_bonus"));
  }
  return bias;
}

class ParityRouting : public ::testing::TestWithParam<Backend> {};

TEST_P(ParityRouting, A1MemoryAwareChoices) {
  for (const char* id :
       {"A1.basic", "A1.paging", "A1.none_resident", "A1.memory_aware_off", "A1.ties_k2",
        "A1.k_equals_E", "A1.signed_zero_tie", "A1.bonus_exact_tie", "A1.bonus_no_overflow",
        "A1.all_nan_k3_unaware", "A1.fix.nan_beats_negatives", "A1.posinf_aware",
        "A1.nan_resident_gets_no_bonus", "A1.fix.duplicate_top2_allnan"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    const RouterConfig config = identity_config(inputs);
    const Routed routed = route(config, GetParam(), parity_floats(inputs.at("gate_logits")),
                                config.num_experts, residency_bonus(inputs));
    EXPECT_EQ(routed.expert_ids, parity.at("expected").at("selected").get<std::vector<int32_t>>())
        << id;
  }
}

TEST_P(ParityRouting, A1RowsOfTheWrongLengthAreRefused) {
  SWITCHYARD_PARITY_CASE(parity, "A1.fix.wrong_length_long");
  const json& inputs = parity.at("inputs");
  const std::vector<float> logits = parity_floats(inputs.at("gate_logits"));
  try {
    route(identity_config(inputs), GetParam(), logits, static_cast<int64_t>(logits.size()));
    FAIL() << "was not refused";
  } catch (const InvalidArgument& error) {
    const std::string message = error.what();
    const json& expected = parity.at("expected");
    EXPECT_NE(message.find(expected.at("expected_len").dump()), std::string::npos) << message;
    EXPECT_NE(message.find(expected.at("got").dump()), std::string::npos) << message;
  }
}

/// The file's middle row has the wrong length and no effect there; here a batch has one width, so
/// the rows that count are routed and the other is refused.
TEST_P(ParityRouting, A1Batches) {
  SWITCHYARD_PARITY_CASE(parity, "A1.route_batch");
  const json& inputs = parity.at("inputs");
  const json& expected = parity.at("expected");
  const RouterConfig config = identity_config(inputs);
  std::vector<float> rows;
  std::vector<int32_t> selected;
  for (size_t i = 0; i < inputs.at("batch").size(); ++i) {
    const std::vector<float> row = parity_floats(inputs.at("batch")[i]);
    if (row.size() != static_cast<size_t>(config.num_experts)) {
      EXPECT_THROW(route(config, GetParam(), row, static_cast<int64_t>(row.size())),
                   InvalidArgument);
      continue;
    }
    rows.insert(rows.end(), row.begin(), row.end());
    for (const int32_t expert : expected.at("selected")[i]) selected.push_back(expert);
  }
  const Routed routed = route(config, GetParam(), rows, config.num_experts);
  EXPECT_EQ(routed.expert_ids, selected);
  EXPECT_EQ(routed.tokens_per_expert, expected.at("activation_counts").get<std::vector<int64_t>>());
}

TEST_P(ParityRouting, MoreChoicesThanExpertsAreRefused) {
  for (const char* id : {"B6.fix.k_gt_E", "D4.fix.k_gt_E"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    RouterConfig config;
    config.num_experts = inputs.contains("probs") ? static_cast<int32_t>(inputs.at("probs").size())
                                                  : inputs.at("num_experts").get<int32_t>();
    config.top_k = inputs.contains("k") ? inputs.at("k") : inputs.at("top_k");
    try {
      const Router router(config, GetParam());
      FAIL() << id << " was not refused";
    } catch (const InvalidArgument& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("top_k"), std::string::npos) << message;
      EXPECT_NE(message.find("num_experts"), std::string::npos) << message;
    }
  }
}

TEST_P(ParityRouting, C5TopK) {
  for (const char* id : {"C5.topk_renorm", "C5.topk_raw"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    const json& expected = parity.at("expected");
    const std::vector<float> logits = parity_floats(inputs.at("logits"));
    const RouterConfig config{.num_experts = static_cast<int32_t>(logits.size()),
                              .top_k = inputs.at("top_k"),
                              .renormalize = inputs.at("normalize")};
    const Routed routed = route(config, GetParam(), logits, config.num_experts);
    EXPECT_EQ(routed.expert_ids, expected.at("expert_indices").get<std::vector<int32_t>>()) << id;
    for (size_t slot = 0; slot < routed.gate_weights.size(); ++slot) {
      const double weight = expected.at("gate_weights")[slot];
      EXPECT_NEAR(routed.gate_weights[slot], weight, parity_tolerance(parity, weight)) << id;
    }
  }
}

/// An empty batch, an error there, is legal here.
TEST_P(ParityRouting, C5Errors) {
  SWITCHYARD_PARITY_CASE(parity, "C5.errors");
  ASSERT_EQ(parity.at("inputs").at("rows").size(), 4u);
  const auto refused = [&](const RouterConfig& config, int64_t columns) {
    try {
      route(config, GetParam(), std::vector<float>(static_cast<size_t>(columns)), columns);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused({.num_experts = 0, .top_k = 1}, 1), "num_experts is 0, must be in [1, 2048]");
  EXPECT_EQ(refused({.num_experts = 3, .top_k = 5}, 3),
            "top_k is 5, must not exceed num_experts, 3");
  EXPECT_EQ(refused({.num_experts = 8, .top_k = 2}, 4), "logits has 4 columns, must have 8");
  EXPECT_EQ(route({.num_experts = 8, .top_k = 2}, GetParam(), {}, 8).expert_ids.size(), 0u);
}

TEST_P(ParityRouting, C5SoftmaxOfHugeLogits) {
  SWITCHYARD_PARITY_CASE(parity, "C5.softmax_huge");
  const std::vector<float> logits = parity_floats(parity.at("inputs").at("logits"));
  const auto size = static_cast<int32_t>(logits.size());
  const Routed routed =
      route({.num_experts = size, .top_k = size, .renormalize = false}, GetParam(), logits, size);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = parity.at("expected")[i];
    EXPECT_NEAR(routed.gate_weights[i], expected, parity_tolerance(parity, expected));
  }
}

TEST_P(ParityRouting, C5SwitchLoss) {
  SWITCHYARD_PARITY_CASE(parity, "C5.switch_loss_skewed");
  const json& inputs = parity.at("inputs");
  std::vector<float> logits = flat(inputs.at("probs"));
  for (float& value : logits) value = std::log(value);  // softmax gives them back
  const int32_t num_experts = inputs.at("num_experts");
  const Routed routed =
      route({.num_experts = num_experts, .top_k = 1}, GetParam(), logits, num_experts);
  EXPECT_EQ(routed.expert_ids, inputs.at("assignments").get<std::vector<int32_t>>());
  const double expected = parity.at("expected");
  EXPECT_NEAR(losses_of(routed).balance_loss, expected, parity_tolerance(parity, expected));
}

TEST_P(ParityRouting, ZLoss) {
  for (const char* id : {"B6.fix.z_loss", "C5.z_loss"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    const auto num_experts = static_cast<int32_t>(inputs.at("logits")[0].size());
    const Routed routed = route({.num_experts = num_experts, .top_k = 1}, GetParam(),
                                flat(inputs.at("logits")), num_experts);
    const double expected = parity.at("expected");
    EXPECT_NEAR(inputs.value("alpha", 1.0) * losses_of(routed).z_loss, expected,
                parity_tolerance(parity, expected))
        << id;
  }
}

TEST(ParityExpertChoice, C5Capacity) {
  SWITCHYARD_PARITY_CASE(parity, "C5.expert_choice_capacity");
  const json& rows = parity.at("inputs").at("rows");
  for (size_t i = 0; i < rows.size(); ++i) {
    ExpertChoiceConfig config;
    config.num_experts = rows[i][0];
    config.capacity_factor = rows[i][2];
    EXPECT_EQ(expert_choice_capacity(config, rows[i][1]), parity.at("expected")[i]) << rows[i];
  }
}

TEST_P(ParityRouting, C5ExpertChoice) {
  SWITCHYARD_PARITY_CASE(parity, "C5.expert_choice_select");
  const json& affinity = parity.at("inputs").at("affinity");
  const json& expected = parity.at("expected");
  const auto num_tokens = static_cast<int64_t>(affinity.size());
  ExpertChoiceConfig config;
  config.num_experts = static_cast<int32_t>(affinity[0].size());
  config.fixed_capacity = parity.at("inputs").at("capacity");
  config.score = ExpertChoiceScore::kSoftmaxOverTokens;
  const std::vector<float> logits = flat(affinity);
  const int64_t capacity = config.fixed_capacity;
  std::vector<int32_t> tokens(static_cast<size_t>(config.num_experts * capacity));
  std::vector<float> weights(tokens.size());
  const ExpertChoiceRouter router(config, GetParam());
  std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(num_tokens)));
  router.route({MatrixView<const float>(logits.data(), num_tokens, config.num_experts)},
               {{tokens.data(), config.num_experts, capacity},
                {weights.data(), config.num_experts, capacity}},
               workspace);
  for (int32_t expert = 0; expert < config.num_experts; ++expert) {
    for (int64_t place = 0; place < capacity; ++place) {
      const auto e = static_cast<size_t>(expert);
      const auto p = static_cast<size_t>(place);
      const size_t i = e * static_cast<size_t>(capacity) + p;
      EXPECT_EQ(tokens[i], expected.at("tokens")[e][p]);
      const double weight = expected.at("weights")[e][p];
      EXPECT_NEAR(weights[i], weight, parity_tolerance(parity, weight));
    }
  }
}

std::string test_name(const ::testing::TestParamInfo<Backend>& test) { return name_of(test.param); }

INSTANTIATE_TEST_SUITE_P(Backends, ParityRouting,
                         ::testing::Values(Backend::kReference, Backend::kCpu), test_name);

}  // namespace
}  // namespace switchyard::test
