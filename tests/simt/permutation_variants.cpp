// The permutation tests on the device: its kernels on the executor, in several orders.
#include <string>

#include "switchyard/errors.h"
#include "tests/simt/device_route.h"
#include "tests/simt/orders.h"

namespace switchyard::test {
namespace {

/// With kernels in one order.
class OrderedDeviceRoute final : public DeviceRoute {
 public:
  OrderedDeviceRoute(const PermutationConfig& config, const simt::Settings& settings)
      : DeviceRoute(config), settings_(settings) {}

 private:
  const simt::ScopedSettings settings_;
};

std::string name_of_order(const NamedSettings& order) { return "cuda, " + order.name; }

std::vector<PermuterVariant> variants_in(const std::vector<std::string>& orders) {
  std::vector<PermuterVariant> variants;
  for (const NamedSettings& order : kernel_orders()) {
    for (const std::string& wanted : orders) {
      if (order.name == wanted) variants.push_back({name_of_order(order), Backend::kCuda, 0, {}});
    }
  }
  return variants;
}

}  // namespace

const std::vector<PermuterVariant>& permuter_variants() {
  static const std::vector<PermuterVariant> kVariants = variants_in({"Forward", "Random1"});
  return kVariants;
}

const std::vector<PermuterVariant>& sorting_variants() {
  static const std::vector<PermuterVariant> kVariants =
      variants_in({"Forward", "Reverse", "Random1"});
  return kVariants;
}

std::unique_ptr<PermuterRoute> make_route(const PermuterVariant& variant,
                                          const PermutationConfig& config) {
  if (variant.backend != Backend::kCuda) return host_route(variant, config);
  for (const NamedSettings& order : kernel_orders()) {
    if (name_of_order(order) == variant.name) {
      return std::make_unique<OrderedDeviceRoute>(config, order.settings);
    }
  }
  throw Unavailable("no order for " + variant.name);
}

}  // namespace switchyard::test
