// Where the library's few log lines go.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

namespace switchyard {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarning, kError, kOff };

using LogSink = std::function<void(LogLevel level, std::string_view message)>;

/// Replaces the sink; an empty one restores the default, spdlog's logger "switchyard" on stderr.
/// Lines may come from any thread, one at a time. A sink must neither throw nor call the library.
/// Nothing on a hot path logs.
void set_log_sink(LogSink sink);

/// Lines below `level` are discarded before they are made. Default: kWarning.
void set_log_level(LogLevel level);

/// Whether a line of this level would be written.
[[nodiscard]] bool is_logged(LogLevel level);

/// Writes a line as the library writes its own: to the sink, unless the level discards it.
void log_line(LogLevel level, std::string_view message);

}  // namespace switchyard
