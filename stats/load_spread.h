// One batch's counts on the hot path of RoutingStats: what they say, and adding them up.
#pragma once

#include <cstdint>

#include "switchyard/tensor_view.h"

namespace switchyard::stats {

struct LoadSpread {
  int64_t total = 0;
  int64_t highest = 0;
  double variance = 0.0;  ///< of the population
};

/// @param counts  1 or more
/// @throws InvalidArgument  for a count outside [0, limit], naming the expert; `limit` is 2^48 at
///                          most.
LoadSpread spread_of(VectorView<const int64_t> counts, int64_t limit);

/// sums[i] += counts[i]; wraps.
void add_counts(int64_t* sums, VectorView<const int64_t> counts);

}  // namespace switchyard::stats
