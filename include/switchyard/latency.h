// How long something takes: a histogram of everything and the exact values of late.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "switchyard/tensor_view.h"

namespace switchyard {

/// Buckets of a log-linear histogram of nanoseconds: 64 to an octave, and one for each number below
/// 128. A bucket's middle is within 1/128 of every number in it.
struct LatencyBuckets {
  static constexpr int kPerGroup = 64;
  static constexpr int kGroups = 58;
  static constexpr int kCount = kGroups * kPerGroup;
  static constexpr double kRelativeError = 1.0 / 128.0;

  /// @param nanoseconds  0 or more
  static constexpr int of(int64_t nanoseconds) {
    const auto value = static_cast<uint64_t>(nanoseconds);
    const int shift = value < 2 * kPerGroup ? 0 : static_cast<int>(std::bit_width(value)) - 7;
    return shift * kPerGroup + static_cast<int>(value >> shift);
  }
  /// The lowest number in the bucket.
  static constexpr int64_t lower(int bucket) {
    const int shift = bucket < 2 * kPerGroup ? 0 : bucket / kPerGroup - 1;
    return int64_t{bucket - shift * kPerGroup} << shift;
  }
  /// The highest number in the bucket.
  static constexpr int64_t upper(int bucket) {
    return bucket + 1 == kCount ? INT64_MAX : lower(bucket + 1) - 1;
  }
  /// What stands for every number in the bucket.
  static constexpr double middle(int bucket) {
    return (static_cast<double>(lower(bucket)) + static_cast<double>(upper(bucket))) / 2.0;
  }
};

/// Latencies in nanoseconds: count, sum, extremes and histogram of all, and the latest
/// kRecentLatencies as they are. A value, cheap to ask: the recent ones are sorted once, when it is
/// made.
class LatencySummary {
 public:
  static constexpr int64_t kRecentLatencies = 1000;
  static constexpr int64_t kMaxLatency = int64_t{1} << 53;  ///< 104 days

  LatencySummary();

  [[nodiscard]] int64_t count() const { return count_; }
  [[nodiscard]] int64_t sum_ns() const { return sum_ns_; }
  [[nodiscard]] double mean_ns() const;  ///< 0 without latencies
  [[nodiscard]] double min_ns() const;   ///< infinity without latencies
  [[nodiscard]] double max_ns() const;   ///< 0 without latencies
  /// [LatencyBuckets::kCount]
  [[nodiscard]] const std::vector<int64_t>& histogram() const { return histogram_; }
  /// Of all latencies, from the histogram: within LatencyBuckets::kRelativeError. 0 without
  /// latencies.
  ///
  /// @param percent  below 0 counts as 0, above 100 as 100.
  /// @throws InvalidArgument  for NaN.
  [[nodiscard]] double percentile_ns(double percent) const;

  /// The latest latencies, oldest first.
  [[nodiscard]] const std::vector<int64_t>& recent_ns() const { return recent_; }
  /// Of the recent latencies, exact: linear interpolation between the two nearest (type 7 of
  /// Hyndman and Fan, 1996). Otherwise as percentile_ns().
  [[nodiscard]] double recent_percentile_ns(double percent) const;

  /// Latencies that `count` is at most `bound_ns`, from the histogram; exact where bound_ns + 1 is
  /// the start of a bucket, as powers of two are.
  [[nodiscard]] int64_t count_up_to(int64_t bound_ns) const;

  /// Adds what was measured at the same time elsewhere; the recent ones of both stay.
  void merge(const LatencySummary& other);
  /// Adds what was measured later; the latest kRecentLatencies of both stay.
  void append(const LatencySummary& later);

  /// Adds one, as the latest.
  /// @throws InvalidArgument  for one outside [0, kMaxLatency].
  void add(int64_t nanoseconds);

  /// A summary of these numbers.
  ///
  /// @param histogram  [LatencyBuckets::kCount]; min and max are looked at only where it holds any.
  /// @param recent     oldest first
  /// @throws InvalidArgument  when they cannot belong together.
  static LatencySummary from(std::vector<int64_t> histogram, int64_t sum_ns, int64_t min_ns,
                             int64_t max_ns, std::vector<int64_t> recent);

  bool operator==(const LatencySummary&) const = default;

 private:
  void add_numbers(const LatencySummary& other);
  void sort_recent();

  int64_t count_ = 0;
  int64_t sum_ns_ = 0;
  int64_t min_ns_ = INT64_MAX;
  int64_t max_ns_ = 0;
  std::vector<int64_t> histogram_;
  std::vector<int64_t> recent_;
  std::vector<int64_t> sorted_;
};

/// A percentile of numbers in ascending order by linear interpolation (type 7); 0 without numbers.
///
/// @param percent  below 0 counts as 0, above 100 as 100.
/// @throws InvalidArgument  for NaN.
double percentile_of_sorted(VectorView<const int64_t> ascending, double percent);

/// The same from a histogram in LatencyBuckets with its groups' sums, by the buckets' middles.
///
/// @param groups     [LatencyBuckets::kGroups] sums of kPerGroup buckets each
/// @param histogram  [LatencyBuckets::kCount]
double percentile_of_histogram(VectorView<const int64_t> groups,
                               VectorView<const int64_t> histogram, double percent);

}  // namespace switchyard
