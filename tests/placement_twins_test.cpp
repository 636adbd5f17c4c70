// The two of the benchmark's random layers that the plain algorithm balances better, by copies
// beside each other: no placement without them is as good.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "bench/plain_placement.h"

namespace switchyard::test {
namespace {

constexpr size_t kExperts = 8;
using Loads = std::array<double, kExperts>;

/// Tries all numbers of copies on ranks of two slots, and for those that could do, all pairs.
class PairSearch {
 public:
  PairSearch(const Loads& loads, int num_ranks, double limit)
      : loads_(loads), num_ranks_(num_ranks), limit_(limit) {}

  bool finds_one() {
    int fewest = 0;
    for (size_t expert = 0; expert < kExperts; ++expert) {
      counts_[expert] = static_cast<int>(std::ceil(loads_[expert] / limit_));
      fewest += counts_[expert];
    }
    for (int alone = 0; alone <= 2 * num_ranks_ - fewest; ++alone) {
      if (any_counts(0, 2 * num_ranks_ - fewest - alone, alone)) return true;
    }
    return false;
  }

 private:
  [[nodiscard]] double share(size_t expert) const { return loads_[expert] / counts_[expert]; }

  /// `more` copies are still to be given out; `alone` ranks hold one copy only.
  bool any_counts(size_t expert, int more, int alone) {
    if (expert + 1 == kExperts) {
      counts_[expert] += more;
      const bool found = counts_[expert] <= num_ranks_ && may_pair(alone) && pairs(alone);
      counts_[expert] -= more;
      return found;
    }
    const int fewest = counts_[expert];
    for (; more >= 0 && counts_[expert] <= num_ranks_; --more, ++counts_[expert]) {
      if (any_counts(expert + 1, more, alone)) return true;
    }
    counts_[expert] = fewest;
    return false;
  }

  /// Of the copies that fit beside none of each other, all but `alone` need others to go with.
  [[nodiscard]] bool may_pair(int alone) const {
    for (size_t expert = 0; expert < kExperts; ++expert) {
      const double room = limit_ - share(expert);
      int partners = alone;
      int rivals = 0;
      for (size_t other = 0; other < kExperts; ++other) {
        const bool heavier = share(other) >= share(expert);
        if (other != expert && share(other) <= room) partners += counts_[other];
        if (other == expert || (heavier && 2.0 * share(expert) > limit_)) rivals += counts_[other];
      }
      if (rivals > partners) return false;
    }
    return true;
  }

  bool pairs(int alone) {
    std::array<size_t, kExperts> order{};
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return share(a) > share(b); });
    std::array<int, kExperts> left = counts_;
    return pair_from(order, 0, 1, left, alone);
  }

  bool pair_from(std::span<const size_t> order, size_t i, size_t j, std::array<int, kExperts>& left,
                 int alone) {
    if (i == kExperts) return true;
    int& here = left[order[i]];
    if (j == kExperts) {
      const int rest = here;
      if (rest > alone) return false;
      here = 0;
      const bool found = pair_from(order, i + 1, i + 2, left, alone - rest);
      here = rest;
      return found;
    }
    int& there = left[order[j]];
    const bool fits = share(order[i]) + share(order[j]) <= limit_;
    for (int both = fits ? std::min(here, there) : 0; both >= 0; --both) {
      here -= both;
      there -= both;
      const bool found = pair_from(order, i, std::min(j + 1, kExperts), left, alone);
      here += both;
      there += both;
      if (found) return true;
    }
    return false;
  }

  Loads loads_;
  int num_ranks_;
  double limit_;
  std::array<int, kExperts> counts_{};
};

double plain_limit(const Loads& loads, int32_t num_ranks, int32_t num_slots) {
  const auto slots = bench::place_plainly(loads, num_ranks, num_slots);
  EXPECT_GT(bench::count_twins(slots, num_ranks), 0);
  const double mean = std::accumulate(loads.begin(), loads.end(), 0.0) / num_ranks;
  return bench::plain_max_over_mean(loads, slots, num_ranks) * mean * (1.0 + 1e-12);
}

TEST(PlacementTwins, AreNeededByALayerOnSixteenRanksOfTwoSlots) {
  const Loads loads{792.03898413220372, 2223.8356743803383, 911.50926313224886, 483.9662048035774,
                    528.4438111684824,  522.75769071061973, 888.61199011723386, 1712.9837548482537};
  const double limit = plain_limit(loads, 16, 32);
  EXPECT_FALSE(PairSearch(loads, 16, limit).finds_one());
  // Where a little more is enough, the search finds it.
  EXPECT_TRUE(PairSearch(loads, 16, limit * 1.0005).finds_one());
}

/// Every expert is on the one rank, the other, or both.
TEST(PlacementTwins, AreNeededByALayerOnTwoRanksOfFiveSlots) {
  const Loads loads{15298.855742248812, 306.3989813528359,  173.37012515071459, 128.2645357133369,
                    1005.4263332319726, 767.76695820585633, 3230.2922990192328, 821.97313065430455};
  const double limit = plain_limit(loads, 2, 10);
  for (int code = 0; code < 3 * 3 * 3 * 3 * 3 * 3 * 3 * 3; ++code) {
    std::array<double, 2> ranks{};
    std::array<int, 2> sizes{};
    int rest = code;
    for (size_t expert = 0; expert < kExperts; ++expert, rest /= 3) {
      for (int rank = 0; rank < 2; ++rank) {
        if (rest % 3 == 1 - rank) continue;
        ranks[static_cast<size_t>(rank)] += loads[expert] / (rest % 3 == 2 ? 2.0 : 1.0);
        ++sizes[static_cast<size_t>(rank)];
      }
    }
    if (std::max(sizes[0], sizes[1]) > 5) continue;
    EXPECT_GT(std::max(ranks[0], ranks[1]), limit);
  }
}

}  // namespace
}  // namespace switchyard::test
