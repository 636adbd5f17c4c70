// Latency summaries: the histogram's error, exact recent percentiles, adding up.
#include "switchyard/latency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "switchyard/exact_sum.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

LatencySummary summary_of(const std::vector<int64_t>& latencies) {
  LatencySummary summary;
  for (const int64_t latency : latencies) summary.add(latency);
  return summary;
}

std::vector<int64_t> numbers(int64_t first, int64_t last) {
  std::vector<int64_t> values(static_cast<size_t>(last - first + 1));
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(LatencyBuckets, CoverEveryNumberOnceAndInOrder) {
  EXPECT_EQ(LatencyBuckets::lower(0), 0);
  for (int bucket = 0; bucket < LatencyBuckets::kCount; ++bucket) {
    ASSERT_EQ(LatencyBuckets::of(LatencyBuckets::lower(bucket)), bucket);
    ASSERT_EQ(LatencyBuckets::of(LatencyBuckets::upper(bucket)), bucket);
    if (bucket > 0) {
      ASSERT_EQ(LatencyBuckets::lower(bucket), LatencyBuckets::upper(bucket - 1) + 1);
    }
  }
  EXPECT_EQ(LatencyBuckets::upper(LatencyBuckets::kCount - 1), INT64_MAX);
}

TEST(LatencyBuckets, AMiddleIsWithinTheStatedErrorOfItsNumbers) {
  for (int bucket = 0; bucket < LatencyBuckets::kCount; ++bucket) {
    const double middle = LatencyBuckets::middle(bucket);
    for (const int64_t number : {LatencyBuckets::lower(bucket), LatencyBuckets::upper(bucket)}) {
      const auto exact = static_cast<double>(number);
      ASSERT_LE(std::abs(middle - exact), exact * LatencyBuckets::kRelativeError) << number;
    }
  }
}

TEST(LatencySummary, OfNothingIsZeroAndItsMinimumInfinite) {
  const LatencySummary summary;
  EXPECT_EQ(summary.count(), 0);
  EXPECT_EQ(summary.mean_ns(), 0.0);
  EXPECT_EQ(summary.min_ns(), std::numeric_limits<double>::infinity());
  EXPECT_EQ(summary.max_ns(), 0.0);
  EXPECT_EQ(summary.percentile_ns(99), 0.0);
  EXPECT_EQ(summary.recent_percentile_ns(99), 0.0);
}

TEST(LatencySummary, RecentPercentilesInterpolateLinearly) {
  const LatencySummary summary = summary_of({30, 10, 40, 20});
  EXPECT_EQ(summary.recent_percentile_ns(0), 10.0);
  EXPECT_EQ(summary.recent_percentile_ns(100), 40.0);
  EXPECT_EQ(summary.recent_percentile_ns(50), 25.0);
  EXPECT_NEAR(summary.recent_percentile_ns(95), 38.5, 1e-9);
}

TEST(LatencySummary, PercentsOutsideTheScaleAreItsEnds) {
  const LatencySummary summary = summary_of({10, 20});
  EXPECT_EQ(summary.recent_percentile_ns(-5), 10.0);
  EXPECT_EQ(summary.recent_percentile_ns(150), 20.0);
  EXPECT_EQ(summary.percentile_ns(-5), 10.0);
  EXPECT_EQ(summary.percentile_ns(150), 20.0);
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(refusal([&] { (void)summary.percentile_ns(kNan); }),
            "percent is nan, must be a number");
  EXPECT_EQ(refusal([&] { (void)summary.recent_percentile_ns(kNan); }),
            "percent is nan, must be a number");
}

TEST(LatencySummary, ThePercentileOfAllIsWithinTheStatedError) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RandomStream random(seed);
    std::vector<int64_t> latencies(static_cast<size_t>(1 + random.below(900)));
    for (int64_t& latency : latencies) {
      latency = static_cast<int64_t>(std::exp2(random.uniform() * 40.0));
    }
    const LatencySummary summary = summary_of(latencies);
    std::sort(latencies.begin(), latencies.end());
    for (const double percent : {0.0, 1.0, 33.3, 50.0, 95.0, 99.0, 100.0}) {
      const double exact =
          percentile_of_sorted({latencies.data(), static_cast<int64_t>(latencies.size())}, percent);
      EXPECT_EQ(summary.recent_percentile_ns(percent), exact) << seed;
      EXPECT_NEAR(summary.percentile_ns(percent), exact, exact * LatencyBuckets::kRelativeError)
          << "seed " << seed << ", percent " << percent;
    }
  }
}

TEST(LatencySummary, KeepsTheLatestThousand) {
  const LatencySummary summary = summary_of(numbers(1, 1500));
  EXPECT_EQ(summary.recent_ns(), numbers(501, 1500));
  EXPECT_EQ(summary.count(), 1500);
  EXPECT_EQ(summary.min_ns(), 1.0);
  EXPECT_EQ(summary.mean_ns(), 750.5);
}

TEST(LatencySummary, AppendingAWindowIsAsIfItHadGoneOn) {
  LatencySummary summary = summary_of(numbers(1, 700));
  summary.append(summary_of(numbers(701, 1500)));
  EXPECT_EQ(summary, summary_of(numbers(1, 1500)));
}

TEST(LatencySummary, MergingRanksKeepsTheRecentOfBoth) {
  LatencySummary summary = summary_of(numbers(1, 1000));
  summary.merge(summary_of(numbers(2001, 3000)));
  EXPECT_EQ(summary.recent_ns().size(), 2000u);
  EXPECT_EQ(summary.recent_percentile_ns(0), 1.0);
  EXPECT_EQ(summary.recent_percentile_ns(100), 3000.0);
  EXPECT_EQ(summary.recent_percentile_ns(50), 1500.5);
  summary.merge(summary);
  EXPECT_EQ(summary.count(), 4000);
}

TEST(LatencySummary, CountsUpToABound) {
  const LatencySummary summary = summary_of({1, 1023, 1024, 5000, 1 << 20});
  EXPECT_EQ(summary.count_up_to(0), 0);
  EXPECT_EQ(summary.count_up_to(1023), 2);
  EXPECT_EQ(summary.count_up_to((1 << 20) - 1), 4);
  EXPECT_EQ(summary.count_up_to(INT64_MAX), 5);
}

TEST(LatencySummary, RefusesWhatCannotBe) {
  LatencySummary summary;
  EXPECT_NE(refusal([&] { summary.add(-1); }).find("nanoseconds is -1"), std::string::npos);
  EXPECT_EQ(summary, LatencySummary());
  EXPECT_EQ(refusal([] {
              LatencySummary::from({1, 2}, 0, 0, 0, {});
            }),
            "histogram has 2 buckets, must have 3712");
  std::vector<int64_t> histogram(LatencyBuckets::kCount);
  histogram[5] = -1;
  EXPECT_EQ(refusal([&] { LatencySummary::from(histogram, 0, 0, 0, {}); }),
            "a bucket of histogram holds -1, must hold 0 or more");
  histogram[5] = 1;
  EXPECT_EQ(refusal([&] { LatencySummary::from(histogram, 5, 5, 4, {}); }),
            "min_ns is 5, max_ns 4 and sum_ns 5, must be 0 or more, in order and at most "
            "9007199254740992");
  EXPECT_EQ(refusal([&] { LatencySummary::from(histogram, 5, 5, 5, {-2}); }),
            "a recent latency is -2, must be in [0, 9007199254740992]");
}

TEST(ExactSum, DoesNotDependOnTheOrder) {
  std::vector<double> terms;
  RandomStream random(7);
  for (int i = 0; i < 1000; ++i) terms.push_back(std::exp2(random.uniform() * 90.0 - 60.0));
  ExactSum forwards;
  for (const double term : terms) forwards.add(term);
  ExactSum backwards;
  std::reverse(terms.begin(), terms.end());
  for (const double term : terms) backwards.add(term);
  EXPECT_EQ(forwards, backwards);
}

TEST(ExactSum, SmallTermsAreNotLostBesideLargeOnes) {
  ExactSum sum;
  sum.add(ExactSum::kMaxTerm);
  for (int i = 0; i < 4096; ++i) sum.add(0x1p-40);
  EXPECT_EQ(sum.whole, uint64_t{1} << 32);
  EXPECT_EQ(sum.fraction, uint64_t{1} << 36);
}

TEST(ExactSum, CarriesIntoWholes) {
  ExactSum sum;
  for (int i = 0; i < 12; ++i) sum.add(0.75);
  EXPECT_EQ(sum.value(), 9.0);
  EXPECT_EQ(sum, ExactSum::of(9.0));
}

TEST(ExactSum, MayBeAddedToItself) {
  ExactSum sum = ExactSum::of(0.75);
  sum.add(sum);
  EXPECT_EQ(sum, ExactSum::of(1.5));
}

}  // namespace
}  // namespace switchyard::test
