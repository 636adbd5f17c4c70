#include "tools/format.h"

#include <charconv>
#include <cstdio>

namespace switchyard::tools {

std::string format_count(int64_t count) {
  std::string text = std::to_string(count);
  const std::size_t first_digit = count < 0 ? 1 : 0;
  for (std::size_t i = text.size(); i > first_digit + 3;) {
    i -= 3;
    text.insert(i, ",");
  }
  return text;
}

std::string format_fixed(double value, int num_decimals) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", num_decimals, value);
  return text;
}

std::string format_duration(double seconds) {
  if (seconds == 0.0) return "-";
  if (seconds < 1e-3) return format_fixed(seconds * 1e6, 0) + " us";
  if (seconds < 1.0) return format_fixed(seconds * 1e3, 2) + " ms";
  return format_fixed(seconds, 2) + " s";
}

std::string format_rate(double per_second) {
  if (!(per_second > 0.0)) return "-";
  if (per_second >= 1e9) return format_fixed(per_second * 1e-9, 2) + " G/s";
  if (per_second >= 1e6) return format_fixed(per_second * 1e-6, 2) + " M/s";
  if (per_second >= 1e3) return format_fixed(per_second * 1e-3, 1) + " k/s";
  return format_fixed(per_second, 0) + " /s";
}

std::string format_shortest(float value) {
  char text[64];
  const auto result = std::to_chars(text, text + sizeof(text), value);
  return {text, result.ptr};
}

}  // namespace switchyard::tools
