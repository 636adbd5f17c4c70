// How this folder says no.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include "switchyard/errors.h"

namespace switchyard::nccl {

template <typename... Parts>
std::string text_of(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

/// Throws InvalidArgument with the parts written one after another.
template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  throw InvalidArgument(text_of(parts...));
}

inline void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    refuse(name, " is ", value, ", must be in [", low, ", ", high, "]");
  }
}

}  // namespace switchyard::nccl
