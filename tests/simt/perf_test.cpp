// The programs for ranks over the NCCL transport, on the executor and the stand-in for NCCL: their
// times mean nothing here, their checks do.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "tests/command_process.h"

namespace switchyard::testing {
namespace {

CommandResult run_words(const std::string& command) {
  std::istringstream stream(command);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return run_program(words);
}

CommandResult run_on(int num_gpus, const std::string& program, const std::string& arguments) {
  return run_words("/usr/bin/env SIMT_DEVICES=" + std::to_string(num_gpus) + " " + program +
                   " --transport nccl -n 2 " + arguments);
}

/// A line for each size, and nothing wrong.
void expect_right(const CommandResult& result, std::size_t num_sizes) {
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  EXPECT_NE(result.out.find("\n# Out of bounds values : 0 OK\n"), std::string::npos) << result.out;
  std::istringstream lines(result.out);
  std::size_t found = 0;
  for (std::string line; std::getline(lines, line);) found += !line.empty() && line[0] != '#';
  EXPECT_EQ(found, num_sizes) << result.out;
}

void expect_refused(const CommandResult& result, const std::string& words) {
  EXPECT_EQ(result.exit_code, 2) << result.out;
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
}

TEST(GpuPerf, ExchangesBetweenGpus) {
  const CommandResult result = run_on(8, ALLTOALL_PERF, "-t 2 -g 2 -b 8 -e 16K -f 4 -c 2");
  expect_right(result, 6);
  for (const char* part : {"transport=nccl ranks=4", "device  0 [", "device  3 ["}) {
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
  }
  EXPECT_EQ(result.out.find("host memory"), std::string::npos) << result.out;
  expect_right(run_on(8, ALLTOALL_PERF, "-t 3 -b 4K -e 4K -d all -z 1"), 12);
  expect_right(run_on(1, ALLTOALL_PERF, "-b 1K -e 2K -f 2"), 2);
}

TEST(GpuPerf, DispatchesAndCombinesBetweenGpus) {
  const std::string small = " -w 0 --hidden 16 --tokens 1,40";
  expect_right(run_on(8, MOE_PERF, "-t 4 --model mixtral-8x7b --zipf 1" + small), 2);
  expect_right(run_on(8, MOE_PERF, "-t 2 --model olmoe --deduplicate --block-rows 16" + small), 2);
  expect_right(run_on(1, MOE_PERF, "--model mixtral-8x7b --dtype f32" + small), 2);
}

TEST(GpuPerf, WithoutAGpuIsOneLine) {
  for (const std::string program : {ALLTOALL_PERF, MOE_PERF}) {
    expect_refused(run_on(0, program, "-t 2"), "_perf: no CUDA device\n");
  }
}

TEST(GpuPerf, RanksDoNotShareGpusWhereNcclDoesNotLetThem) {
  expect_refused(run_on(2, ALLTOALL_PERF, "-t 3 -b 1K -e 1K"), "3 ranks on ");
  expect_refused(run_on(1, MOE_PERF, "-t 2"),
                 ", which has 1 GPU(s); to share them NCCL must be 2.30");
}

}  // namespace
}  // namespace switchyard::testing
