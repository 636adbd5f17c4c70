// Lets who starts a program on the executor say how many devices it finds.
#include <cstdlib>

#include "tests/simt/settings.h"

namespace {

[[maybe_unused]] const bool kHasDevices = [] {
  const char* const devices = std::getenv("SIMT_DEVICES");
  switchyard::simt::settings().num_devices =
      devices == nullptr ? switchyard::simt::kMaxDevices : std::atoi(devices);
  return true;
}();

}  // namespace
