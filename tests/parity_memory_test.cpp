// Memory-aware serving gives what the system that it re-creates gives, or what it should have
// given.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "switchyard/errors.h"
#include "tests/paging_case.h"
#include "tests/parity_cases.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

Residency residency_of(int32_t num_experts) {
  return Residency({.num_experts = num_experts, .fast_slots = num_experts});
}

/// The source leaves ids out of range alone; here they are refused, which changes nothing either.
void set_where_in_range(Residency& residency, int32_t expert, bool resident = true) {
  if (expert >= residency.config().num_experts) {
    EXPECT_THROW(residency.set_resident(0, expert), InvalidArgument);
    EXPECT_THROW(residency.clear_resident(0, expert), InvalidArgument);
    EXPECT_THROW((void)residency.is_resident(0, expert), InvalidArgument);
  } else if (resident) {
    residency.set_resident(0, expert);
  } else {
    residency.clear_resident(0, expert);
  }
}

TEST(ParityMemory, A2Masks) {
  for (const char* id : {"A2.mask64", "A2.mask128"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    Residency residency = residency_of(parity.at("inputs").at("num_experts"));
    for (const int32_t expert : parity.at("inputs").at("resident")) {
      set_where_in_range(residency, expert);
    }
    const json& expected = parity.at("expected");
    EXPECT_EQ(json(residents_of(residency)), expected.at("resident")) << id;
    if (expected.contains("count")) {
      EXPECT_EQ(residency.num_resident(0), expected.at("count"));
    }
    const json queries = expected.value("is_resident", json::object());
    for (const auto& [key, resident] : queries.items()) {
      const int32_t expert = std::stoi(key);
      if (expert < residency.config().num_experts) {
        EXPECT_EQ(json(residency.is_resident(0, expert)), resident) << id << ' ' << key;
      }
    }
  }
}

TEST(ParityMemory, A2SetAndClear) {
  SWITCHYARD_PARITY_CASE(parity, "A2.set_resident");
  Residency residency = residency_of(parity.at("inputs").at("num_experts"));
  for (const int32_t expert : parity.at("inputs").at("resident")) {
    set_where_in_range(residency, expert);
  }
  EXPECT_EQ(json(residents_of(residency)), parity.at("expected").at("before"));
  for (const json& step : parity.at("inputs").at("then")) {
    set_where_in_range(residency, step[0], step[1]);
  }
  EXPECT_EQ(json(residents_of(residency)), parity.at("expected").at("after"));

  SWITCHYARD_PARITY_CASE(outside, "A2.mask_oob");
  Residency empty = residency_of(8);
  for (const int32_t expert : outside.at("inputs").at("set")) set_where_in_range(empty, expert);
  EXPECT_EQ(empty.num_resident(0), outside.at("expected").at("count"));
}

TEST(ParityMemory, A3PrioritiesRiseToUrgent) {
  SWITCHYARD_PARITY_CASE(parity, "A3.fix.priority_order");
  std::vector<std::pair<PagingPriority, std::string>> names = {
      {PagingPriority::kUrgent, "Urgent"},
      {PagingPriority::kPrefetch, "Prefetch"},
      {PagingPriority::kNormal, "Normal"}};
  std::sort(names.begin(), names.end());
  std::vector<std::string> order;
  for (const auto& [priority, name] : names) order.push_back(name);
  EXPECT_EQ(json(order), parity.at("expected"));
}

TEST(ParityMemory, A3PrefetchByAffinity) {
  SWITCHYARD_PARITY_CASE(parity, "A3.prefetch_affinity");
  const json& inputs = parity.at("inputs");
  ExpertCacheConfig config = cache_config(inputs.at("num_experts"), 3, EvictionPolicy::kAffinity);
  config.decay = inputs.at("decay");
  ExpertCache cache(config);
  // Its two best, ten times, which that system does not make resident by itself.
  for (int i = 0; i < inputs.at("repeat").get<int>(); ++i) {
    serve(cache, {2, 0});
    for (const int32_t expert : {0, 2}) {
      requests_of([&](auto requests) { return cache.evict(0, expert, requests); });
    }
  }
  for (const int32_t expert : inputs.at("resident")) {
    requests_of(
        [&](auto requests) { return cache.admit(0, expert, PagingPriority::kNormal, requests); });
  }
  const auto requests =
      requests_of([&](auto buffer) { return cache.prefetch(0, inputs.at("budget"), buffer); });
  json found = json::array();
  for (const PagingRequest& request : requests) {
    EXPECT_EQ(request.direction, PagingDirection::kIn);
    EXPECT_EQ(request.priority, PagingPriority::kPrefetch);
    found.push_back({request.expert, "Prefetch"});
  }
  EXPECT_EQ(found, parity.at("expected"));
}

TEST(ParityMemory, A6Metrics) {
  SWITCHYARD_PARITY_CASE(rate, "A6.hit_rate");
  MemoryMetrics metrics;
  metrics.record_hits(rate.at("inputs").at("hits"));
  metrics.record_misses(rate.at("inputs").at("misses"));
  EXPECT_EQ(json(metrics.hit_rate()), rate.at("expected"));

  SWITCHYARD_PARITY_CASE(latency, "A6.latency");
  metrics.reset();
  for (const int64_t microseconds : latency.at("inputs").at("latencies_us")) {
    metrics.record_latency(1000 * microseconds);
  }
  EXPECT_EQ(metrics.timed_decisions, latency.at("expected").at("decisions"));
  EXPECT_EQ(metrics.mean_latency_ns(), 1000 * latency.at("expected").at("avg_us").get<double>());
  EXPECT_EQ(metrics.latency_max_ns, 1000 * latency.at("expected").at("max_us").get<int64_t>());

  SWITCHYARD_PARITY_CASE(bulk, "A6.bulk");
  metrics.reset();
  for (const json& step : bulk.at("inputs").at("ops")) {
    const int64_t count = step.size() > 1 ? step[1].get<int64_t>() : 1;
    if (step[0].get<std::string>().starts_with("hit")) {
      metrics.record_hits(count);
    } else {
      metrics.record_misses(count);
    }
  }
  EXPECT_EQ(metrics.hits, bulk.at("expected").at("hits"));
  EXPECT_EQ(metrics.misses, bulk.at("expected").at("misses"));
  const double expected = bulk.at("expected").at("hit_rate");
  EXPECT_NEAR(metrics.hit_rate(), expected, parity_tolerance(bulk, expected));

  SWITCHYARD_PARITY_CASE(reset, "A6.reset");
  metrics.record_latency(10'000);
  metrics.reset();
  EXPECT_EQ(metrics, MemoryMetrics{});
  EXPECT_EQ(reset.at("expected").at("hits"), metrics.hits);
}

EvictionPolicy policy_named(std::string name) {
  name[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(name[0])));
  return eviction_policy_of(name.c_str());
}

TEST(ParityMemory, A9EvictsInOrder) {
  SWITCHYARD_PARITY_CASE(parity, "A9.lru");
  const json& inputs = parity.at("inputs");
  ExpertCache cache(cache_config(inputs.at("num_experts"), inputs.at("max_hot"),
                                 policy_named(inputs.at("policy"))));
  json hits = json::array();
  for (const int32_t expert : inputs.at("accesses")) hits.push_back(cache.access(0, expert));
  const json& expected = parity.at("expected");
  EXPECT_EQ(hits, expected.at("hit"));
  EXPECT_EQ(json(residents_of(cache.residency())), expected.at("hot_set"));
  const MemoryMetrics& metrics = cache.metrics();
  EXPECT_EQ(json({metrics.hits, metrics.misses, metrics.page_outs, metrics.prefetch_hits}),
            expected.at("stats_hits_misses_evictions_prefetchhits"));
}

TEST(ParityMemory, A9RefusesUnknownExperts) {
  SWITCHYARD_PARITY_CASE(parity, "A9.fix.out_of_range_admitted");
  const json& inputs = parity.at("inputs");
  ExpertCache cache(cache_config(inputs.at("num_experts"), inputs.at("max_hot")));
  for (const int32_t expert : inputs.at("accesses")) {
    EXPECT_THROW(cache.access(0, expert), InvalidArgument);
  }
  EXPECT_EQ(cache.metrics(), MemoryMetrics{});
  EXPECT_EQ(cache.residency().num_resident(0), 0);
}

void prefetch(ExpertCache& cache, int32_t expert) {
  requests_of(
      [&](auto requests) { return cache.admit(0, expert, PagingPriority::kPrefetch, requests); });
}

TEST(ParityMemory, A9CountsNoFalsePrefetchHit) {
  SWITCHYARD_PARITY_CASE(once, "A9.prefetch_hit_once");
  ExpertCache cache(cache_config(8, once.at("inputs").at("max_hot")));
  prefetch(cache, 5);
  EXPECT_EQ(json(cache.access(0, 5)), once.at("expected").at("first_access_hit"));
  std::vector<int64_t> after{cache.metrics().prefetch_hits};
  cache.access(0, 5);
  after.push_back(cache.metrics().prefetch_hits);
  EXPECT_EQ(json(after), once.at("expected").at("prefetch_hits_after"));

  SWITCHYARD_PARITY_CASE(hot, "A9.fix.false_prefetch_hit");
  ExpertCache already(cache_config(8, hot.at("inputs").at("max_hot")));
  already.access(0, 5);
  prefetch(already, 5);
  already.access(0, 5);
  EXPECT_EQ(already.metrics().prefetch_hits, hot.at("expected").at("prefetch_hits"));

  SWITCHYARD_PARITY_CASE(stale, "A9.fix.stale_prefetch_flag");
  ExpertCache small(cache_config(8, stale.at("inputs").at("max_hot")));
  prefetch(small, 5);
  for (const int32_t expert : {0, 5, 5}) small.access(0, expert);
  EXPECT_EQ(small.metrics().prefetch_hits, stale.at("expected").at("prefetch_hits"));
  EXPECT_EQ(small.metrics().prefetch_misses, 1);
}

TEST(ParityMemory, A9AdmitsOnce) {
  SWITCHYARD_PARITY_CASE(parity, "A9.admit_idempotent");
  ExpertCache cache(cache_config(8, parity.at("inputs").at("max_hot")));
  for (const int32_t expert : {0, 1, 0, 1}) {
    requests_of(
        [&](auto requests) { return cache.admit(0, expert, PagingPriority::kNormal, requests); });
  }
  EXPECT_EQ(cache.residency().num_resident(0), parity.at("expected").at("hot_count"));
  EXPECT_EQ(cache.metrics().hits, parity.at("expected").at("hits"));
  EXPECT_EQ(cache.metrics().misses, parity.at("expected").at("misses"));
}

/// Hits and misses of a list of accesses under each policy.
void expect_counts(const json& parity, const std::vector<int32_t>& accesses) {
  const json& inputs = parity.at("inputs");
  for (const char* policy : {"Lru", "Lfu", "Adaptive"}) {
    ExpertCache cache(
        cache_config(inputs.at("num_experts"), inputs.at("max_hot"), policy_named(policy)));
    for (const int32_t expert : accesses) cache.access(0, expert);
    EXPECT_EQ(json({cache.metrics().hits, cache.metrics().misses}),
              parity.at("expected").at(policy))
        << parity.at("id") << ' ' << policy;
  }
}

TEST(ParityMemory, A9HitRates) {
  SWITCHYARD_PARITY_CASE(realistic, "A9.hit_rate_realistic");
  std::vector<int32_t> accesses;
  const json& inputs = realistic.at("inputs");
  const int32_t num_experts = inputs.at("num_experts");
  for (int t = 0; t < inputs.at("tokens").get<int>(); ++t) {
    std::vector<std::pair<float, int32_t>> scores;
    for (int32_t e = 0; e < num_experts; ++e) {
      const float score = 1.0f / std::sqrt(static_cast<float>(e) + 1.0f) +
                          0.2f * std::sin(static_cast<float>(t * e) * 0.1f);
      scores.emplace_back(-score, e);
    }
    std::sort(scores.begin(), scores.end());
    for (size_t i = 0; i < inputs.at("top_k").get<size_t>(); ++i) {
      accesses.push_back(scores[i].second);
    }
  }
  std::vector<int64_t> counts(static_cast<size_t>(num_experts));
  for (const int32_t expert : accesses) ++counts[static_cast<size_t>(expert)];
  EXPECT_EQ(json(counts), realistic.at("expected").at("counts"));
  expect_counts(realistic, accesses);

  SWITCHYARD_PARITY_CASE(bench, "A9.hit_rate_bench");
  accesses.clear();
  for (int t = 0; t < bench.at("inputs").at("tokens").get<int>(); ++t) {
    const int32_t first = (3 * t + t / 10) % 8;
    accesses.push_back(first);
    accesses.push_back((first + 1 + t % 3) % 8);
  }
  expect_counts(bench, accesses);
}

}  // namespace
}  // namespace switchyard::test
