// Where a percentile lies among numbers in order.
#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard::stats {

/// Of `count` numbers, 1 or more, between ranks `below` and `above` (type 7).
struct PercentilePosition {
  int64_t below = 0;
  int64_t above = 0;
  double share = 0.0;  ///< of the way from one to the other

  PercentilePosition(int64_t count, double percent) {
    const double rank = static_cast<double>(count - 1) * (percent / 100.0);
    below = static_cast<int64_t>(rank);
    above = std::min(below + 1, count - 1);
    share = rank - static_cast<double>(below);
  }
  [[nodiscard]] double between(double low, double high) const { return low + share * (high - low); }
};

}  // namespace switchyard::stats
