// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard::tools {

std::string format_count(int64_t count);                   ///< 1,234,567
std::string format_fixed(double value, int num_decimals);  ///< 1.25
std::string format_duration(double seconds);               ///< 1.23 ms
std::string format_rate(double per_second);                ///< 12.3 M/s, "-" for 0
std::string format_shortest(float value);                  ///< reads back as the same float

}  // namespace switchyard::tools
