// moe_perf: its table, its JSON file, its exit codes, over threads and MPI.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "bench/moe_choices.h"
#include "switchyard/errors.h"
#include "tests/command_process.h"

namespace switchyard::testing {
namespace {

const std::string kEnglish = SWITCHYARD_SOURCE_DIR "/examples/traces/english.safetensors";

CommandResult run_moe_perf(const std::string& arguments, const std::string& launcher = "") {
  std::istringstream stream(launcher + " " MOE_PERF " " + arguments);
  std::vector<std::string> all;
  for (std::string word; stream >> word;) all.push_back(word);
  return run_program(all);
}

void expect_right(const CommandResult& result, std::size_t num_sizes) {
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  std::size_t found = 0;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    ++found;
    EXPECT_EQ(line.substr(line.find_last_of(' ') + 1), "0") << line;
  }
  EXPECT_EQ(found, num_sizes) << result.out;
  EXPECT_NE(result.out.find("\n# Out of bounds values : 0 OK\n"), std::string::npos) << result.out;
}

TEST(MoePerf, MeasuresTracesAndModels) {
  const std::string small = " --hidden 16 -n 2 -w 0 --tokens 1,40";
  expect_right(run_moe_perf("-t 3 --trace " + kEnglish + small), 2);
  expect_right(run_moe_perf("-t 2 -g 2 --model mixtral-8x7b --zipf 1.2 --deduplicate" + small), 2);
  expect_right(run_moe_perf("--model olmoe --block-rows 16 --dtype f32" + small), 2);
}

TEST(MoePerf, WritesWhatItMeasured) {
  const TemporaryDirectory directory;
  const std::string path = directory / "moe.json";
  expect_right(
      run_moe_perf("-t 4 --model mixtral-8x7b --tokens 64 --hidden 8 -n 3 --deduplicate -J " +
                   path),
      1);
  const nlohmann::json json = nlohmann::json::parse(read_whole(path));
  EXPECT_EQ(json.at("num_ranks"), 4);
  const nlohmann::json& result = json.at("results").at(0);
  EXPECT_EQ(result.at("rows"), 4 * 64 * 2);
  EXPECT_EQ(result.at("bytes"), 4 * 64 * 2 * 16);
  EXPECT_LE(result.at("deduplicated_rows"), result.at("rows"));
  EXPECT_EQ(result.at("wrong"), 0);
  for (const char* time : {"plan_us", "dispatch_us", "combine_us", "raw_us", "copy_us"}) {
    EXPECT_GT(result.at(time), 0.0) << time;
  }
  for (const char* time : {"predicted_dispatch_us", "predicted_combine_us"}) {
    EXPECT_GE(result.at(time), 0.0) << time;  // 0: not predicted
  }
}

TEST(MoePerf, PredictsFromLinksMeasuredBefore) {
  const TemporaryDirectory directory;
  const std::string links = directory / "links.json";
  const std::string path = directory / "moe.json";
  // 1 ms for 1 KB of each of 2 ranks, 2 ms for 2 KB.
  std::ofstream(links) << R"({"config": {"devices": [0, 1]}, "results": [
    {"size": 1024, "out_of_place": {"time": 1000}}, {"size": 2048, "out_of_place": {"time": 2000}}
  ]})";
  expect_right(run_moe_perf("-t 2 --model olmoe --tokens 8 --hidden 8 -n 1 --links " + links +
                            " -J " + path),
               1);
  const nlohmann::json result = nlohmann::json::parse(read_whole(path)).at("results").at(0);
  // 8 tokens of 2 ranks, 8 rows of 16 bytes each, read once for all their rows.
  EXPECT_NEAR(result.at("predicted_dispatch_us").get<double>(), 1000.0 * 1.125 / 2.0, 1e-6);
  EXPECT_NEAR(result.at("predicted_combine_us").get<double>(), 1000.0 * 1.125 / 2.0, 1e-6);
}

TEST(MoePerf, RefusesWithOneLine) {
  const auto refuses = [](const std::string& arguments, const std::string& part) {
    const CommandResult result = run_moe_perf(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_EQ(result.err.rfind("moe_perf: ", 0), 0u) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  };
  refuses("--model nothing", "nothing");
  refuses("--trace /nonexistent", "/nonexistent");
  refuses("--tokens 0", "--tokens is 0");
  refuses("--hidden 0", "--hidden is 0");
  refuses("--dtype int8", "--dtype is 'int8'");
  refuses("--zipf -1", "--zipf is -1");
  refuses("--block-rows 0", "block_rows is 0");
  refuses("--staging much", "'much' is no number of bytes");
  refuses("--links /nonexistent", "cannot read /nonexistent");
  refuses("--links " + kEnglish, "holds no results of alltoall_perf");
  refuses("--fast", "--fast");
}

TEST(MoeChoices, AreSampledWithoutReplacementAndSkewed) {
  const bench::MoeChoices choices({.model = "olmoe", .trace = {}, .zipf = 1.0});
  const std::vector<int32_t> ids = choices.tokens(0, 2000);
  std::vector<int64_t> counts(64);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ASSERT_GE(ids[i], 0);
    ASSERT_LT(ids[i], 64);
    ++counts[static_cast<std::size_t>(ids[i])];
    for (std::size_t other = i / 8 * 8; other < i; ++other) ASSERT_NE(ids[other], ids[i]);
  }
  std::sort(counts.begin(), counts.end());
  EXPECT_GT(counts.back(), 8 * counts.front());
  EXPECT_EQ(choices.tokens(5, 3), std::vector<int32_t>(ids.begin() + 40, ids.begin() + 64));
}

#ifdef SWITCHYARD_MPIRUN
TEST(MoePerf, RunsOverMpi) {
  expect_right(run_moe_perf("--trace " + kEnglish + " --hidden 16 -n 2 -w 0 --tokens 1,40",
                            SWITCHYARD_MPIRUN " -n 4"),
               2);
  expect_right(run_moe_perf("--model olmoe --hidden 300 -n 2 --tokens 40,9 --deduplicate "
                            "--private-rows",
                            SWITCHYARD_MPIRUN " -n 2"),
               2);
  expect_right(run_moe_perf("--model olmoe --hidden 300 -n 2 --tokens 40,9 --private-rows "
                            "--staging 0",
                            SWITCHYARD_MPIRUN " -n 2"),
               2);
}
#endif

}  // namespace
}  // namespace switchyard::testing
