#include "switchyard/latency.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "stats/percentile_position.h"
#include "stats/refuse.h"
#include "stats/wrapping_sum.h"

namespace switchyard {

using stats::PercentilePosition;

double percentile_of_sorted(VectorView<const int64_t> ascending, double percent) {
  percent = stats::checked_percent(percent);
  if (ascending.empty()) return 0.0;
  const PercentilePosition position(ascending.size, percent);
  return position.between(static_cast<double>(ascending[position.below]),
                          static_cast<double>(ascending[position.above]));
}

double percentile_of_histogram(VectorView<const int64_t> groups,
                               VectorView<const int64_t> histogram, double percent) {
  percent = stats::checked_percent(percent);
  int64_t count = 0;
  for (int64_t group = 0; group < groups.size; ++group) count += groups[group];
  if (count <= 0) return 0.0;
  const auto value_at = [&](int64_t rank) {
    int64_t group = 0;
    while (group + 1 < groups.size && rank >= groups[group]) rank -= groups[group++];
    auto bucket = static_cast<int>(group) * LatencyBuckets::kPerGroup;
    const int last = bucket + LatencyBuckets::kPerGroup - 1;
    while (bucket < last && rank >= histogram[bucket]) rank -= histogram[bucket++];
    return LatencyBuckets::middle(bucket);
  };
  const PercentilePosition position(count, percent);
  const double low = value_at(position.below);
  return position.share == 0.0 ? low : position.between(low, value_at(position.above));
}

LatencySummary::LatencySummary() : histogram_(LatencyBuckets::kCount) {}

double LatencySummary::mean_ns() const {
  return count_ == 0 ? 0.0 : static_cast<double>(sum_ns_) / static_cast<double>(count_);
}

double LatencySummary::min_ns() const {
  return count_ == 0 ? std::numeric_limits<double>::infinity() : static_cast<double>(min_ns_);
}

double LatencySummary::max_ns() const { return static_cast<double>(max_ns_); }

double LatencySummary::percentile_ns(double percent) const {
  std::vector<int64_t> groups(LatencyBuckets::kGroups);
  for (std::size_t bucket = 0; bucket < histogram_.size(); ++bucket) {
    groups[bucket / LatencyBuckets::kPerGroup] += histogram_[bucket];
  }
  const double value =
      percentile_of_histogram({groups.data(), LatencyBuckets::kGroups},
                              {histogram_.data(), LatencyBuckets::kCount}, percent);
  return count_ == 0 ? 0.0 : std::clamp(value, min_ns(), max_ns());
}

double LatencySummary::recent_percentile_ns(double percent) const {
  return percentile_of_sorted({sorted_.data(), static_cast<int64_t>(sorted_.size())}, percent);
}

int64_t LatencySummary::count_up_to(int64_t bound_ns) const {
  int64_t count = 0;
  for (int bucket = 0; bucket < LatencyBuckets::kCount; ++bucket) {
    if (LatencyBuckets::upper(bucket) > bound_ns) break;
    count += histogram_[static_cast<std::size_t>(bucket)];
  }
  return count;
}

void LatencySummary::add_numbers(const LatencySummary& other) {
  stats::add_wrapping(count_, other.count_);
  stats::add_wrapping(sum_ns_, other.sum_ns_);
  min_ns_ = std::min(min_ns_, other.min_ns_);
  max_ns_ = std::max(max_ns_, other.max_ns_);
  for (std::size_t i = 0; i < histogram_.size(); ++i) {
    stats::add_wrapping(histogram_[i], other.histogram_[i]);
  }
}

void LatencySummary::sort_recent() {
  sorted_ = recent_;
  std::sort(sorted_.begin(), sorted_.end());
}

void LatencySummary::merge(const LatencySummary& other) {
  const std::vector<int64_t> theirs = other.recent_;  // `other` may be this
  add_numbers(other);
  recent_.insert(recent_.end(), theirs.begin(), theirs.end());
  sort_recent();
}

void LatencySummary::append(const LatencySummary& later) {
  merge(later);
  const auto size = static_cast<int64_t>(recent_.size());
  if (size <= kRecentLatencies) return;
  recent_.erase(recent_.begin(), recent_.begin() + (size - kRecentLatencies));
  sort_recent();
}

void LatencySummary::add(int64_t nanoseconds) {
  stats::check_range("nanoseconds", nanoseconds, 0, kMaxLatency);
  LatencySummary one;
  one.count_ = 1;
  one.sum_ns_ = one.min_ns_ = one.max_ns_ = nanoseconds;
  one.histogram_[static_cast<std::size_t>(LatencyBuckets::of(nanoseconds))] = 1;
  one.recent_ = {nanoseconds};
  append(one);
}

LatencySummary LatencySummary::from(std::vector<int64_t> histogram, int64_t sum_ns, int64_t min_ns,
                                    int64_t max_ns, std::vector<int64_t> recent) {
  if (histogram.size() != static_cast<std::size_t>(LatencyBuckets::kCount)) {
    stats::refuse("histogram has ", histogram.size(), " buckets, must have ",
                  LatencyBuckets::kCount);
  }
  LatencySummary summary;
  for (const int64_t bucket : histogram) {
    if (bucket < 0) stats::refuse("a bucket of histogram holds ", bucket, ", must hold 0 or more");
    if (__builtin_add_overflow(summary.count_, bucket, &summary.count_)) {
      stats::refuse("the sum of histogram overflows");
    }
  }
  if (summary.count_ > 0) {
    if (min_ns < 0 || max_ns < min_ns || max_ns > kMaxLatency || sum_ns < 0) {
      stats::refuse("min_ns is ", min_ns, ", max_ns ", max_ns, " and sum_ns ", sum_ns,
                    ", must be 0 or more, in order and at most ", kMaxLatency);
    }
    summary.sum_ns_ = sum_ns;
    summary.min_ns_ = min_ns;
    summary.max_ns_ = max_ns;
  }
  for (const int64_t latency : recent) {
    stats::check_range("a recent latency", latency, 0, kMaxLatency);
  }
  summary.histogram_ = std::move(histogram);
  summary.recent_ = std::move(recent);
  summary.sort_recent();
  return summary;
}

}  // namespace switchyard
