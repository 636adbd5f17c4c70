// Every policy evicts what a plain re-statement of it would, on random and on real accesses.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <filesystem>

#include "switchyard/expert_cache.h"
#include "switchyard/trace.h"
#include "tests/paging_case.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

constexpr EvictionPolicy kPolicies[] = {EvictionPolicy::kLru, EvictionPolicy::kLfu,
                                        EvictionPolicy::kAdaptive, EvictionPolicy::kAffinity,
                                        EvictionPolicy::kBelady};

/// One access after another, all state looked through each time.
class PlainCache {
 public:
  PlainCache(int32_t num_experts, int32_t slots, EvictionPolicy policy, double decay,
             std::vector<int32_t> accesses)
      : slots_(static_cast<size_t>(slots)),
        policy_(policy),
        decay_(decay),
        accesses_(std::move(accesses)),
        last_(static_cast<size_t>(num_experts)),
        count_(last_.size()),
        score_(last_.size()) {}

  bool access(size_t at) {
    const int32_t expert = accesses_[at];
    const auto e = static_cast<size_t>(expert);
    last_[e] = static_cast<int64_t>(at) + 1;
    ++count_[e];
    for (double& score : score_) score *= decay_;
    score_[e] += 1.0;
    if (std::find(table_.begin(), table_.end(), expert) != table_.end()) return true;
    if (slots_ == 0) return false;
    if (table_.size() == slots_) {
      *victim(at) = table_.back();
      table_.pop_back();
    }
    table_.push_back(expert);
    return false;
  }
  [[nodiscard]] std::vector<int32_t> residents() const {
    std::vector<int32_t> sorted = table_;
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }

 private:
  using Place = std::vector<int32_t>::iterator;

  [[nodiscard]] int64_t distance(int32_t expert, size_t at) const {
    const auto begin = accesses_.begin() + static_cast<std::ptrdiff_t>(at) + 1;
    return std::find(begin, accesses_.end(), expert) - begin;
  }
  /// Scores that differ in their last 12 bits alone count as equal.
  static uint64_t rank(double score) { return std::bit_cast<uint64_t>(score) >> 12; }
  [[nodiscard]] bool is_skewed() const {
    int64_t fewest = INT64_MAX;
    int64_t most = 0;
    for (const int32_t expert : table_) {
      fewest = std::min(fewest, count_[static_cast<size_t>(expert)]);
      most = std::max(most, count_[static_cast<size_t>(expert)]);
    }
    return fewest > 0 && most >= 3 * fewest;
  }
  Place victim(size_t at) {
    const bool by_count =
        policy_ == EvictionPolicy::kLfu || (policy_ == EvictionPolicy::kAdaptive && is_skewed());
    return std::min_element(table_.begin(), table_.end(), [&](int32_t a, int32_t b) {
      const auto i = static_cast<size_t>(a);
      const auto j = static_cast<size_t>(b);
      if (by_count) return count_[i] < count_[j];
      if (policy_ == EvictionPolicy::kAffinity) {
        return rank(score_[i]) < rank(score_[j]) || (rank(score_[i]) == rank(score_[j]) && a < b);
      }
      if (policy_ == EvictionPolicy::kBelady) {
        const int64_t first = distance(a, at);
        const int64_t second = distance(b, at);
        return first > second || (first == second && a < b);
      }
      return last_[i] < last_[j];
    });
  }

  size_t slots_;
  EvictionPolicy policy_;
  double decay_;
  std::vector<int32_t> accesses_;
  std::vector<int32_t> table_;
  std::vector<int64_t> last_;
  std::vector<int64_t> count_;
  std::vector<double> score_;
};

/// Accesses with favourites that change.
std::vector<int32_t> random_accesses(int32_t num_experts, int64_t count, RandomStream& random) {
  std::vector<int32_t> accesses;
  int64_t favourite = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (random.chance(3)) favourite = random.below(num_experts);
    const int64_t id = random.chance(60) ? favourite + random.below(4) : random.below(num_experts);
    accesses.push_back(static_cast<int32_t>(id % num_experts));
  }
  return accesses;
}

TEST(EvictionPolicy, EvictsAsItsPlainStatement) {
  for (const EvictionPolicy policy : kPolicies) {
    for (uint64_t seed = 1; seed <= 12; ++seed) {
      RandomStream random(seed);
      const auto num_experts = static_cast<int32_t>(1 + random.below(90));
      const auto slots = static_cast<int32_t>(random.below(num_experts + 1));
      SCOPED_TRACE(::testing::Message() << name_of(policy) << ", seed " << seed << ", E "
                                        << num_experts << ", slots " << slots);
      const std::vector<int32_t> accesses = random_accesses(num_experts, 400, random);
      ExpertCacheConfig config = cache_config(num_experts, slots, policy);
      // Powers of two, so that decaying every score and growing the increment round alike.
      config.decay = random.chance(50) ? 0.5 : 0.25;
      PlainCache plain(num_experts, slots, policy, config.decay, accesses);
      ExpertCache cache(config);
      if (policy == EvictionPolicy::kBelady) cache.plan_accesses(0, view_of(accesses));
      for (size_t at = 0; at < accesses.size(); ++at) {
        ASSERT_EQ(cache.access(0, accesses[at]), plain.access(at)) << "access " << at;
        ASSERT_EQ(residents_of(cache.residency()), plain.residents()) << "access " << at;
      }
    }
  }
}

TEST(EvictionPolicy, NoneBeatsBelady) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    RandomStream random(seed);
    const std::vector<int32_t> accesses = random_accesses(32, 3000, random);
    int64_t bound = 0;
    for (const EvictionPolicy policy :
         {EvictionPolicy::kBelady, EvictionPolicy::kLru, EvictionPolicy::kLfu,
          EvictionPolicy::kAdaptive, EvictionPolicy::kAffinity}) {
      ExpertCache cache(cache_config(32, 8, policy));
      if (policy == EvictionPolicy::kBelady) cache.plan_accesses(0, view_of(accesses));
      for (const int32_t expert : accesses) cache.access(0, expert);
      if (policy == EvictionPolicy::kBelady) bound = cache.metrics().hits;
      EXPECT_LE(cache.metrics().hits, bound) << name_of(policy) << ", seed " << seed;
    }
  }
}

TEST(EvictionPolicy, BeladyKeepsToItsPlan) {
  ExpertCache cache(cache_config(4, 2, EvictionPolicy::kBelady));
  const std::vector<int32_t> plan{0, -1, 1, 2};
  cache.plan_accesses(0, view_of(plan));
  cache.access(0, 0);
  EXPECT_EQ(refusal([&] { cache.access(0, 3); }),
            "access 1 of layer 0 is to expert 3, must be to 1 as planned");
  serve(cache, {1, 2});
  EXPECT_EQ(refusal([&] { cache.access(0, 0); }),
            "access 3 of layer 0 is to expert 0, the plan has 3 accesses");
  const std::vector<int32_t> unknown{0, 4};
  EXPECT_EQ(refusal([&] { cache.plan_accesses(0, view_of(unknown)); }),
            "expert_ids[1] is 4, must be in [-1, 3]");
  ExpertCache other(cache_config(4, 2));
  EXPECT_EQ(refusal([&] { other.plan_accesses(0, view_of(plan)); }),
            "policy is lru, must be belady to plan accesses");
  EXPECT_EQ(cache.metrics().decisions, 2);
}

/// Long runs rescale the growing increment; the order of what was used must not show it.
TEST(EvictionPolicy, AffinitySurvivesItsOwnGrowth) {
  ExpertCacheConfig config = cache_config(4, 2, EvictionPolicy::kAffinity);
  config.decay = 0.9;
  ExpertCache cache(config);
  serve(cache, {3});
  for (int i = 0; i < 20000; ++i) serve(cache, {0, 1});
  EXPECT_EQ(cache.use_probability(0, 3), 0.0);
  EXPECT_NEAR(cache.use_probability(0, 0), 1.0, 1e-9);
  serve(cache, {0});
  EXPECT_EQ(cache.next_victim(0), 1);
}

TEST(EvictionPolicy, TransitionsKeepWhatFollows) {
  ExpertCacheConfig config = cache_config(8, 3, EvictionPolicy::kAffinity);
  config.learn_transitions = true;
  config.decay = 0.9;
  ExpertCache learning(config);
  config.learn_transitions = false;
  ExpertCache plain(config);
  // A round of 0, 1, 2, 3: with three slots only what follows tells whom to keep.
  for (int i = 0; i < 400; ++i) {
    serve(learning, {i % 4});
    serve(plain, {i % 4});
  }
  EXPECT_GT(learning.metrics().hit_rate(), plain.metrics().hit_rate() + 0.2);
}

class RealAccesses : public ::testing::Test {
 protected:
  static constexpr const char* kTrace =
      SWITCHYARD_SOURCE_DIR "/../shared/traces/gpt-oss-20b/decode.safetensors";

  static double hit_rate(const Trace& trace, EvictionPolicy policy, bool learn_transitions) {
    MemoryMetrics sum;
    for (const TraceLayer& layer : trace.layers()) {
      ExpertCacheConfig config = cache_config(trace.num_experts(), 12, policy);
      config.learn_transitions = learn_transitions;
      ExpertCache cache(config);
      std::vector<PagingRequest> requests(64);
      for (int64_t token = 0; token < trace.num_tokens(); ++token) {
        const int32_t* const ids = layer.expert_ids.row(token);
        if (policy == EvictionPolicy::kAffinity) {
          cache.serve(0, {ids, 1, trace.top_k()}, {requests.data(), 64});
        } else {
          for (int32_t slot = 0; slot < trace.top_k(); ++slot) cache.access(0, ids[slot]);
        }
      }
      sum.record_hits(cache.metrics().hits);
      sum.record_misses(cache.metrics().misses);
    }
    return sum.hit_rate();
  }
};

TEST_F(RealAccesses, AffinityPassesTheHitRateOfLru) {
  if (!std::filesystem::exists(kTrace)) GTEST_SKIP() << kTrace << " is not here";
  const Trace trace = Trace::open(kTrace);
  const double lru = hit_rate(trace, EvictionPolicy::kLru, false);
  const double affinity = hit_rate(trace, EvictionPolicy::kAffinity, false);
  const double transitions = hit_rate(trace, EvictionPolicy::kAffinity, true);
  EXPECT_NEAR(lru, 0.748, 0.001);
  EXPECT_GT(affinity, 0.80);
  EXPECT_GT(transitions, affinity);
}

}  // namespace
}  // namespace switchyard::test
