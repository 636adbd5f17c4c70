// Log lines: which are made, and where they go.
#include "switchyard/logging.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/logging.h"

namespace switchyard {
namespace {

class Logging : public ::testing::Test {
 protected:
  void TearDown() override {
    set_log_sink({});
    set_log_level(LogLevel::kWarning);
  }
  void record() {
    set_log_sink(
        [this](LogLevel level, std::string_view message) { lines_.emplace_back(level, message); });
  }
  std::vector<std::pair<LogLevel, std::string>> lines_;
};

TEST_F(Logging, LinesBelowTheLevelAreDiscarded) {
  record();
  cpu::log(LogLevel::kInfo, "quiet");
  cpu::log(LogLevel::kWarning, "a ", 1);
  set_log_level(LogLevel::kTrace);
  cpu::log(LogLevel::kTrace, "b ", 2.5);
  set_log_level(LogLevel::kOff);
  cpu::log(LogLevel::kError, "quiet");
  cpu::log(LogLevel::kOff, "quiet");
  ASSERT_EQ(lines_.size(), 2u);
  EXPECT_EQ(lines_[0], (std::pair<LogLevel, std::string>{LogLevel::kWarning, "a 1"}));
  EXPECT_EQ(lines_[1], (std::pair<LogLevel, std::string>{LogLevel::kTrace, "b 2.5"}));
}

TEST_F(Logging, TheDefaultSinkIsStandardErrorAndTakesLinesAsTheyAre) {
  ::testing::internal::CaptureStderr();
  cpu::log(LogLevel::kWarning, "100 {} %s");
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("[switchyard] [warning] 100 {} %s\n"), text.npos) << text;
}

TEST_F(Logging, AnEmptySinkRestoresTheDefault) {
  record();
  set_log_sink({});
  ::testing::internal::CaptureStderr();
  cpu::log(LogLevel::kError, "back");
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("back"), std::string::npos);
  EXPECT_TRUE(lines_.empty());
}

TEST_F(Logging, LinesOfOthersGoTheSameWay) {
  record();
  EXPECT_FALSE(is_logged(LogLevel::kInfo));
  EXPECT_TRUE(is_logged(LogLevel::kWarning));
  log_line(LogLevel::kInfo, "quiet");
  log_line(LogLevel::kWarning, "loud");
  EXPECT_EQ(lines_, (std::vector<std::pair<LogLevel, std::string>>{{LogLevel::kWarning, "loud"}}));
}

TEST_F(Logging, ThreadsWriteOneLineAtATime) {
  record();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int line = 0; line < 200; ++line) cpu::log(LogLevel::kError, line);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(lines_.size(), 800u);
}

}  // namespace
}  // namespace switchyard
