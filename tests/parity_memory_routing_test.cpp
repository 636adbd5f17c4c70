// Memory-aware decisions give what the system that they re-create gives, or what it should have
// given.
#include <gtest/gtest.h>

#include "switchyard/errors.h"
#include "switchyard/memory_aware_router.h"
#include "tests/paging_case.h"
#include "tests/parity_cases.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

MemoryAwareRouterConfig config_of(const json& inputs) {
  MemoryAwareRouterConfig config;
  config.routing.num_experts = inputs.at("num_experts");
  config.routing.top_k = inputs.at("top_k");
  config.cache.memory.num_experts = config.routing.num_experts;
  config.cache.memory.fast_slots = config.routing.num_experts;
  config.preference = additive_preference({}, parity_float(inputs.at("cache_bonus")));
  config.memory_aware = inputs.value("memory_aware", true);
  config.cache.prefetch_threshold =
      inputs.value("prefetch_threshold", config.cache.prefetch_threshold);
  return config;
}

/// The chosen experts of one row and the requests for them.
struct Routed {
  std::vector<int32_t> selected;
  std::vector<PagingRequest> requests;
};

Routed route(MemoryAwareRouter& router, const std::vector<float>& logits) {
  const int64_t top_k = router.config().routing.top_k;
  Routed routed;
  routed.selected.assign(static_cast<size_t>(top_k), -7);
  std::vector<float> weights(routed.selected.size());
  RoutingResult result;
  result.expert_ids = {routed.selected.data(), 1, top_k};
  result.gate_weights = MatrixView<float>(weights.data(), 1, top_k);
  const MatrixView<const float> row(logits.data(), 1, static_cast<int64_t>(logits.size()));
  routed.requests = requests_of([&](VectorView<PagingRequest> requests) {
    return router.route(0, {.logits = row}, result, requests);
  });
  return routed;
}

json to_json(const std::vector<PagingRequest>& requests) {
  json out = json::array();
  for (const PagingRequest& request : requests) {
    out.push_back({request.expert, request.direction == PagingDirection::kIn ? "In" : "Out",
                   request.priority == PagingPriority::kUrgent ? "Urgent" : "?"});
  }
  return out;
}

class ParityMemoryRouting : public ::testing::TestWithParam<Backend> {};

TEST_P(ParityMemoryRouting, A1ChoosesCountsAndPages) {
  for (const char* id :
       {"A1.basic", "A1.paging", "A1.none_resident", "A1.memory_aware_off", "A1.ties_k2",
        "A1.k_equals_E", "A1.signed_zero_tie", "A1.bonus_exact_tie", "A1.bonus_no_overflow",
        "A1.all_nan_k3_unaware", "A1.fix.nan_beats_negatives", "A1.posinf_aware",
        "A1.nan_resident_gets_no_bonus", "A1.fix.duplicate_top2_allnan"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    MemoryAwareRouter router(config_of(inputs), GetParam());
    for (const int32_t expert : inputs.at("resident")) {
      requests_of([&](VectorView<PagingRequest> requests) {
        return router.cache().admit(0, expert, PagingPriority::kNormal, requests);
      });
    }
    const Routed routed = route(router, parity_floats(inputs.at("gate_logits")));
    const json& expected = parity.at("expected");
    EXPECT_EQ(json(routed.selected), expected.at("selected")) << id;
    EXPECT_EQ(to_json(routed.requests), expected.at("paging")) << id;
    EXPECT_EQ(router.cache().metrics().hits, expected.at("cache_hits")) << id;
    EXPECT_EQ(router.cache().metrics().misses, expected.at("cache_misses")) << id;
  }
}

TEST_P(ParityMemoryRouting, A1RefusesRowsOfAnotherLength) {
  SWITCHYARD_PARITY_CASE(parity, "A1.fix.wrong_length_long");
  MemoryAwareRouter router(config_of(parity.at("inputs")), GetParam());
  EXPECT_THROW(route(router, parity_floats(parity.at("inputs").at("gate_logits"))),
               InvalidArgument);
  EXPECT_EQ(router.cache().metrics(), MemoryMetrics{});
  EXPECT_EQ(router.cache().use_probability(0, 0), 0.0);
}

/// The source routes a batch row by row and answers a row of the wrong length with the first
/// experts; here such a row is refused and counts as little.
TEST_P(ParityMemoryRouting, A1Batches) {
  SWITCHYARD_PARITY_CASE(parity, "A1.route_batch");
  const json& inputs = parity.at("inputs");
  const json& expected = parity.at("expected");
  MemoryAwareRouterConfig config = config_of(inputs);
  config.cache.decay = 1.0;
  MemoryAwareRouter router(config, GetParam());
  for (size_t row = 0; row < inputs.at("batch").size(); ++row) {
    const std::vector<float> logits = parity_floats(inputs.at("batch")[row]);
    if (logits.size() == 4) {
      EXPECT_EQ(json(route(router, logits).selected), expected.at("selected")[row]) << row;
    } else {
      EXPECT_THROW(route(router, logits), InvalidArgument);
    }
  }
  const MemoryMetrics& metrics = router.cache().metrics();
  EXPECT_EQ(metrics.decisions, expected.at("routing_decisions"));
  EXPECT_EQ(metrics.misses, expected.at("cache_misses"));
  std::vector<int64_t> activations;
  for (int32_t expert = 0; expert < 4; ++expert) {
    activations.push_back(std::lround(router.cache().use_probability(0, expert) *
                                      static_cast<double>(metrics.decisions)));
  }
  EXPECT_EQ(json(activations), expected.at("activation_counts"));
}

TEST(ParityMemoryConfig, A3DefaultsAndLimits) {
  SWITCHYARD_PARITY_CASE(parity, "A3.defaults");
  const MemoryAwareRouterConfig defaults;
  const json& expected = parity.at("expected");
  EXPECT_EQ(defaults.preference.bonus, expected.at("cache_bonus").get<float>());
  EXPECT_EQ(defaults.routing.top_k, expected.at("top_k"));
  EXPECT_EQ(defaults.routing.num_experts, expected.at("num_experts"));
  EXPECT_EQ(defaults.memory_aware, expected.at("memory_aware").get<bool>());
  EXPECT_EQ(defaults.cache.prefetch_threshold, expected.at("prefetch_threshold").get<double>());
  validate(defaults);

  SWITCHYARD_PARITY_CASE(nan_bonus, "A3.fix.nan_bonus");
  MemoryAwareRouterConfig wrong;
  wrong.preference.bonus = parity_float(nan_bonus.at("inputs").at("cache_bonus"));
  EXPECT_THROW(validate(wrong), InvalidArgument);

  SWITCHYARD_PARITY_CASE(builder, "A3.builder");
  const MemoryAwareRouterConfig built = config_of(builder.at("inputs"));
  const json& wanted = builder.at("expected");
  validate(built);
  EXPECT_EQ(built.routing.num_experts, wanted.at("num_experts"));
  EXPECT_EQ(built.routing.top_k, wanted.at("top_k"));
  EXPECT_EQ(built.preference.bonus, wanted.at("cache_bonus").get<float>());
  EXPECT_EQ(built.cache.prefetch_threshold, wanted.at("prefetch_threshold").get<double>());
}

INSTANTIATE_TEST_SUITE_P(Backends, ParityMemoryRouting,
                         ::testing::Values(Backend::kReference, Backend::kCpu),
                         [](const auto& backend) { return std::string(name_of(backend.param)); });

}  // namespace
}  // namespace switchyard::test
