// The program that users of nccl-tests run: its table, its JSON file, its exit codes.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "bench/perf_options.h"
#include "bench/perf_values.h"
#include "switchyard/errors.h"
#include "tests/command_process.h"

namespace switchyard::testing {
namespace {

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> all;
  for (std::string word; stream >> word;) all.push_back(word);
  return all;
}

CommandResult run_perf(const std::string& arguments, const std::string& launcher = "") {
  return run_program(words(launcher + " " ALLTOALL_PERF " " + arguments));
}

/// A line for each size, none of them wrong, and the closing lines.
void expect_sweep(const CommandResult& result, std::size_t num_sizes) {
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  std::size_t found = 0;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    ++found;
    const std::vector<std::string> columns = words(line);
    ASSERT_GE(columns.size(), 13u) << line;
    EXPECT_EQ(columns[8], "0") << line;
    EXPECT_EQ(columns[12], "N/A") << line;
  }
  EXPECT_EQ(found, num_sizes) << result.out;
  EXPECT_NE(result.out.find("\n# Out of bounds values : 0 OK\n# Avg bus bandwidth    : "),
            std::string::npos)
      << result.out;
}

TEST(AlltoallPerf, SweepsOverThreads) {
  expect_sweep(run_perf("-t 4 -b 8 -e 64K -f 2 -n 3"), 14);
  expect_sweep(run_perf("-t 2 -g 2 -b 1K -e 5K -i 1K -d bfloat16 -m 2 -c 2 -N 2 -z 1 -C 1"), 10);
}

TEST(AlltoallPerf, ARankMayBeAlone) { expect_sweep(run_perf("-b 1K -e 2K -f 2 -n 2"), 2); }

TEST(AlltoallPerf, KnowsEveryDataType) {
  expect_sweep(run_perf("-t 3 -b 4K -e 4K -d all -n 1"), 12);
}

TEST(AlltoallPerf, StatesSizesAndBandwidthsAsNcclTestsDoes) {
  const TemporaryDirectory directory;
  const std::string path = directory / "perf.json";
  const CommandResult result = run_perf("-t 3 -b 1000 -e 1000 -n 2 -a 3 -J " + path);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = nlohmann::json::parse(read_whole(path));
  EXPECT_EQ(json.at("version"), 3);
  EXPECT_EQ(json.at("config").at("devices").size(), 3u);
  EXPECT_EQ(json.at("out_of_bounds").at("count"), 0);
  const nlohmann::json& row = json.at("results").at(0);
  // 250 floats over 3 ranks are 83 each, of which 80 are whole 16 bytes.
  EXPECT_EQ(row.at("count"), 80);
  EXPECT_EQ(row.at("size"), 80 * 3 * 4);
  EXPECT_EQ(row.at("type"), "float");
  const nlohmann::json& out = row.at("out_of_place");
  EXPECT_EQ(out.at("nwrong"), 0);
  EXPECT_TRUE(row.at("in_place").is_null());
  const double algorithm = 960 / (out.at("time").get<double>() * 1e3);
  EXPECT_NEAR(out.at("alg_bw").get<double>(), algorithm, algorithm * 1e-9);
  EXPECT_NEAR(out.at("bus_bw").get<double>(), algorithm * 2 / 3, algorithm * 1e-9);
}

TEST(AlltoallPerf, UncheckedIsNotCalledRight) {
  const CommandResult result = run_perf("-t 2 -b 1K -e 1K -n 1 -c 0");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_TRUE(std::regex_search(result.out, std::regex(" +1024 .* N/A +N/A +N/A +N/A +N/A\n")))
      << result.out;
}

TEST(AlltoallPerf, TooSlowIsAFailure) {
  EXPECT_EQ(run_perf("-t 2 -b 1K -e 1K -n 1 --min-bandwidth 1000000").exit_code, 1);
}

TEST(AlltoallPerf, WrongUsageIsOneLineAndExitCode2) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"-x", "-x"},
      {"-b 1Q", "'1Q' is no number of bytes"},
      {"-b 2M -e 1M", "-e is 1048576, must be 2097152 or more"},
      {"-b 8 -e 16 -i 0", "-i is 0, must be 1 or more"},
      {"-b 0 -e 16 -f 2", "-b, with -f, is 0"},
      {"-n 0", "-n is 0, must be 1 or more"},
      {"-t 2000", "-t times -g is 2000"},
      {"-d float12", "-d is 'float12', must be int8"},
      {"-G 1", "there are no graphs"},
      {"-a 4", "not in range"},
      {"--raw --transport in_process", "--raw needs --transport mpi"},
      {"-b 8 -e 8 -J /nonexistent/perf.json", "/nonexistent/perf.json"}};
  for (const auto& [arguments, expected] : cases) {
    const CommandResult result = run_perf(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_NE(result.err.find(expected), std::string::npos) << arguments << ": " << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
}

TEST(AlltoallPerf, TakesWhatHasNoMeaningHere) {
  expect_sweep(run_perf("-b 1K -e 1K -n 1 -o sum -r 0 -p 1 -y 0 -R 1 -G 0 -T 20"), 1);
  EXPECT_EQ(run_perf("--help").exit_code, 0);
}

#ifdef SWITCHYARD_MPIRUN
TEST(AlltoallPerf, SweepsOverProcesses) {
  expect_sweep(run_perf("-b 8 -e 64K -f 2", SWITCHYARD_MPIRUN " -n 4"), 14);
  expect_sweep(run_perf("-b 8K -e 64K -f 2 --raw -n 3", SWITCHYARD_MPIRUN " -n 2"), 4);
}

TEST(AlltoallPerf, OneProcessSpeaksForAll) {
  const CommandResult result = run_perf("-b 1Q", SWITCHYARD_MPIRUN " -n 2");
  EXPECT_EQ(result.exit_code, 2);
  const std::string text = "alltoall_perf: '1Q' is no number of bytes";
  EXPECT_NE(result.err.find(text), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find(text), result.err.rfind(text)) << result.err;
}
#endif

TEST(PerfOptions, BytesAreBinary) {
  EXPECT_EQ(bench::parse_bytes("8"), 8);
  EXPECT_EQ(bench::parse_bytes("64K"), 65536);
  EXPECT_EQ(bench::parse_bytes("1.5m"), 3 << 19);
  EXPECT_EQ(bench::parse_bytes("6G"), int64_t{6} << 30);
  for (const char* text : {"", "K", "8KB", "-8", "nan", "1e30", "8 "}) {
    EXPECT_THROW(bench::parse_bytes(text), InvalidArgument) << text;
  }
}

TEST(PerfOptions, SizesGrowByStepOrFactor) {
  bench::PerfOptions options;
  options.min_bytes = 8;
  options.max_bytes = 40;
  options.step_bytes = 16;
  EXPECT_EQ(options.sizes(), (std::vector<int64_t>{8, 24, 40}));
  options.step_factor = 2;
  EXPECT_EQ(options.sizes(), (std::vector<int64_t>{8, 16, 32}));
}

TEST(PerfValues, WrongElementsAreCounted) {
  for (const int64_t size : {1, 2, 4, 8}) {
    std::vector<std::byte> elements(200'000);
    bench::fill_elements(elements, size, 3, 1, 10);
    EXPECT_EQ(bench::count_wrong(elements, size, 3, 1, 10), 0);
    elements.front() ^= std::byte{1};
    elements.back() ^= std::byte{1};
    EXPECT_EQ(bench::count_wrong(elements, size, 3, 1, 10), 2);
    EXPECT_GT(bench::count_wrong(elements, size, 2, 1, 10), 1000);  // from another rank
    EXPECT_GT(bench::count_wrong(elements, size, 3, 2, 10), 1000);  // of another repetition
    EXPECT_GT(bench::count_wrong(elements, size, 3, 1, 11), 1000);  // meant for another place
  }
}

}  // namespace
}  // namespace switchyard::testing
