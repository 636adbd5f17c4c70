// What every call of the switchyard program must look like from outside.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/command_process.h"

namespace switchyard::testing {

inline void expect_success(const CommandResult& result) {
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
}

/// Every refusal looks the same: one line, exit code 2, nothing on standard output.
inline void expect_refusal(const CommandResult& result, const std::string& part) {
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err.rfind("switchyard: ", 0), 0u) << result.err;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_EQ(result.err.find('\n'), result.err.size() - 1) << result.err;
  EXPECT_NE(result.err.find(part), result.err.npos) << result.err;
}

}  // namespace switchyard::testing
