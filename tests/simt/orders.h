// The orders in which a test of a kernel runs it.
#pragma once

#include <string>
#include <vector>

#include "tests/simt/settings.h"

namespace switchyard::test {

struct NamedSettings {
  std::string name;
  simt::Settings settings;
};

/// Forward, reverse, and random by several seeds with threads that give way at atomics.
inline std::vector<NamedSettings> kernel_orders() {
  std::vector<NamedSettings> orders(2);
  orders[0] = {"Forward", {}};
  orders[1] = {"Reverse", {}};
  orders[1].settings.order = simt::Order::kReverse;
  for (const int seed : {1, 2, 3}) {
    NamedSettings random{"Random" + std::to_string(seed), {}};
    random.settings.order = simt::Order::kRandom;
    random.settings.seed = static_cast<uint64_t>(seed);
    random.settings.preempt_one_in = 3;
    orders.push_back(random);
  }
  return orders;
}

/// How GoogleTest prints a parameter.
inline void PrintTo(const NamedSettings& order, std::ostream* out) { *out << order.name; }

}  // namespace switchyard::test
