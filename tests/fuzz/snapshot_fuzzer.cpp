// Any bytes are a snapshot, or are refused with an Error; what is one can be added up and written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "switchyard/errors.h"
#include "switchyard/routing_snapshot.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  try {
    using switchyard::RoutingSnapshot;
    RoutingSnapshot snapshot = RoutingSnapshot::from_bytes(std::as_bytes(std::span(data, size)));
    if (!(RoutingSnapshot::from_bytes(snapshot.to_bytes()) == snapshot)) std::abort();
    snapshot.merge_rank(snapshot);
    snapshot.append(snapshot);
    (void)snapshot.to_json();
    (void)snapshot.summary();
  } catch (const switchyard::Error&) {
  }
  return 0;
}
