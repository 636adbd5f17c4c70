// Links the exporter without knowing Prometheus's headers.
#include <cstdio>

#include "switchyard/prometheus_exporter.h"

int main() {
  const switchyard::RoutingStats stats({.num_experts = 4});
  const switchyard::PrometheusExporter exporter("0", stats);
  std::printf("listens at %.10s\n", exporter.address().c_str());
}
