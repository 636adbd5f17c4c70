#include "stats/load_spread.h"

#include <algorithm>

#include "stats/refuse.h"
#include "stats/wrapping_sum.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stats/load_spread.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/highway.h"

#ifndef SWITCHYARD_STATS_COUNT_SUMS
#define SWITCHYARD_STATS_COUNT_SUMS
namespace switchyard::stats {

/// As unsigned numbers, so that a count below 0 is a very high one.
struct CountSums {
  uint64_t total = 0;
  uint64_t highest = 0;
  uint64_t squares = 0;  ///< of the counts' lower 32 bits

  void add(uint64_t count) {
    total += count;
    highest = std::max(highest, count);
    squares += (count & UINT32_MAX) * (count & UINT32_MAX);
  }
};

}  // namespace switchyard::stats
#endif

HWY_BEFORE_NAMESPACE();
namespace switchyard::stats::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

CountSums SumCounts(const int64_t* counts, int64_t size) {
  const hn::ScalableTag<uint64_t> d;
  const hn::RepartitionToNarrow<decltype(d)> d32;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto total = hn::Zero(d);
  auto highest = hn::Zero(d);
  auto squares = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    const auto count = hn::LoadU(d, reinterpret_cast<const uint64_t*>(counts + i));
    const auto halves = hn::BitCast(d32, count);
    total = hn::Add(total, count);
    highest = hn::Max(highest, count);
    squares = hn::Add(squares, hn::MulEven(halves, halves));
  }
  CountSums sums;
  HWY_ALIGN uint64_t totals[HWY_MAX_BYTES / sizeof(uint64_t)];
  HWY_ALIGN uint64_t maxima[HWY_MAX_BYTES / sizeof(uint64_t)];
  HWY_ALIGN uint64_t squared[HWY_MAX_BYTES / sizeof(uint64_t)];
  hn::Store(total, d, totals);
  hn::Store(highest, d, maxima);
  hn::Store(squares, d, squared);
  for (int64_t lane = 0; lane < lanes; ++lane) {
    sums.total += totals[lane];
    sums.highest = std::max(sums.highest, maxima[lane]);
    sums.squares += squared[lane];
  }
  for (; i < size; ++i) sums.add(static_cast<uint64_t>(counts[i]));
  return sums;
}

void AddCounts(int64_t* sums, const int64_t* counts, int64_t size) {
  const hn::ScalableTag<int64_t> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    hn::StoreU(hn::Add(hn::LoadU(d, sums + i), hn::LoadU(d, counts + i)), d, sums + i);
  }
  for (; i < size; ++i) add_wrapping(sums[i], counts[i]);
}

}  // namespace switchyard::stats::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::stats {
namespace {

HWY_EXPORT(SumCounts);
HWY_EXPORT(AddCounts);

/// Counts below this have squares that add up within 64 bits over any number of experts.
constexpr uint64_t kSmallCount = uint64_t{1} << 26;

using Wide = unsigned __int128;

Wide wide_squares(VectorView<const int64_t> counts, int64_t limit) {
  Wide squares = 0;
  for (int64_t expert = 0; expert < counts.size; ++expert) {
    const int64_t count = counts[expert];
    if (count < 0 || count > limit) {
      refuse("tokens_per_expert of expert ", expert, " is ", count, ", must be in [0, ", limit,
             "]");
    }
    squares += static_cast<Wide>(count) * static_cast<Wide>(count);
  }
  return squares;
}

}  // namespace

LoadSpread spread_of(VectorView<const int64_t> counts, int64_t limit) {
  const CountSums sums = HWY_DYNAMIC_DISPATCH(SumCounts)(counts.data, counts.size);
  const Wide squares = sums.highest < kSmallCount ? sums.squares : wide_squares(counts, limit);
  const auto size = static_cast<uint64_t>(counts.size);
  // n * sum(x^2) - sum(x)^2 in whole numbers: no digit is lost before the division.
  const Wide difference = squares * size - static_cast<Wide>(sums.total) * sums.total;
  const auto squared_size = static_cast<double>(size * size);
  const double numerator = (difference >> 64) == 0
                               ? static_cast<double>(static_cast<uint64_t>(difference))
                               : static_cast<double>(difference);
  return {static_cast<int64_t>(sums.total), static_cast<int64_t>(sums.highest),
          numerator / squared_size};
}

void add_counts(int64_t* sums, VectorView<const int64_t> counts) {
  HWY_DYNAMIC_DISPATCH(AddCounts)(sums, counts.data, counts.size);
}

}  // namespace switchyard::stats
#endif  // HWY_ONCE
