// How the front door says no.
#pragma once

#include <sstream>

#include "switchyard/errors.h"

namespace switchyard::cpu {

/// Throws InvalidArgument with the parts written one after another.
template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw InvalidArgument(message.str());
}

}  // namespace switchyard::cpu
