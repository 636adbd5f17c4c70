// Statistics as Prometheus's families of metrics: the one place that knows their names.
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "stats/recent_balancedness.h"
#include "switchyard/routing_snapshot.h"

namespace switchyard::stats {

/// Every family is there always, so that no dashboard misses one.
std::vector<prometheus::MetricFamily> metric_families(const RoutingSnapshot& snapshot,
                                                      const LayerBalancedness& balancedness,
                                                      bool per_expert);

}  // namespace switchyard::stats
