#pragma once

#include <cstdint>

namespace c10 {
/// Named by what is included, used by nothing that is timed.
struct Float8_e4m3fnuz {
  uint8_t bits;
};
}  // namespace c10
