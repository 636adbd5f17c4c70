// How this folder says no.
#pragma once

#include <cmath>
#include <cstdint>
#include <sstream>

#include "switchyard/errors.h"

namespace switchyard::stats {

/// Throws InvalidArgument with the parts written one after another.
template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw InvalidArgument(message.str());
}

inline void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    refuse(name, " is ", value, ", must be in [", low, ", ", high, "]");
  }
}

inline void check_real(const char* name, double value, double low, double high) {
  if (!(value >= low && value <= high)) {
    refuse(name, " is ", value, ", must be in [", low, ", ", high, "]");
  }
}

/// @return `percent` within [0, 100]
inline double checked_percent(double percent) {
  if (std::isnan(percent)) refuse("percent is nan, must be a number");
  return percent < 0.0 ? 0.0 : percent > 100.0 ? 100.0 : percent;
}

}  // namespace switchyard::stats
