#include "cpu/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

namespace switchyard {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

/// A program that registered a logger of this name gets the lines in it.
std::shared_ptr<spdlog::logger> default_logger() {
  static const std::shared_ptr<spdlog::logger> kOwn = [] {
    auto logger = std::make_shared<spdlog::logger>(
        "switchyard", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    logger->set_level(spdlog::level::trace);  // this file decides
    return logger;
  }();
  const std::shared_ptr<spdlog::logger> registered = spdlog::get("switchyard");
  return registered != nullptr ? registered : kOwn;
}

struct State {
  std::atomic<LogLevel> level{LogLevel::kWarning};
  std::mutex mutex;  // one line at a time, and none through a sink that is being replaced
  LogSink sink;
};

/// Never destroyed, so that static objects of the program may log while it ends.
State& state() {
  static State* const kState = new State;
  return *kState;
}

}  // namespace

void set_log_sink(LogSink sink) {
  const std::lock_guard lock(state().mutex);
  state().sink = std::move(sink);
}

void set_log_level(LogLevel level) { state().level = level; }

namespace cpu {

bool log_enabled(LogLevel level) {
  return level != LogLevel::kOff && level >= state().level.load(std::memory_order_relaxed);
}

void write_log(LogLevel level, std::string_view message) {
  const std::lock_guard lock(state().mutex);
  if (state().sink) {
    state().sink(level, message);
  } else {
    default_logger()->log(spdlog_level(level), "{}", message);
  }
}

}  // namespace cpu

bool is_logged(LogLevel level) { return cpu::log_enabled(level); }

void log_line(LogLevel level, std::string_view message) {
  if (is_logged(level)) cpu::write_log(level, message);
}

}  // namespace switchyard
