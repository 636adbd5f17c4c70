// Balancedness of the tokens of late, from sums that only grow.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/routing_snapshot.h"

namespace switchyard::stats {

/// Of the layers with load in the window; those without are left out. 1 where there is none.
struct LayerBalancedness {
  std::vector<double> layers;  ///< mean / max of each layer, 1 without load
  double min = 1.0;
  double mean = 1.0;
  double p50 = 1.0;
  double p90 = 1.0;
  int64_t worst_layer = -1;  ///< the lowest id among equals; -1 without load
};

/// Remembers the sums of one to two windows ago, and what came since is of late.
class RecentBalancedness {
 public:
  /// @param window_ns  1 or more
  explicit RecentBalancedness(int64_t window_ns) : window_ns_(window_ns) {}

  /// @param now_ns  never falling
  LayerBalancedness update(const RoutingSnapshot& snapshot, int64_t now_ns);

 private:
  using Counts = std::vector<std::vector<int64_t>>;

  int64_t window_ns_;
  int64_t newer_ns_ = 0;  ///< when newer_ was taken
  bool has_started_ = false;
  Counts older_;  ///< empty: nothing
  Counts newer_;
};

}  // namespace switchyard::stats
