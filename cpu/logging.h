// How the library writes its few log lines. Not for hot paths.
#pragma once

#include <sstream>

#include "switchyard/logging.h"

namespace switchyard::cpu {

[[nodiscard]] bool log_enabled(LogLevel level);

/// Hands one line to the sink, whatever the level.
void write_log(LogLevel level, std::string_view message);

/// Logs the parts written one after another.
template <typename... Parts>
void log(LogLevel level, const Parts&... parts) {
  if (!log_enabled(level)) return;
  std::ostringstream message;
  (message << ... << parts);
  write_log(level, message.str());
}

}  // namespace switchyard::cpu
