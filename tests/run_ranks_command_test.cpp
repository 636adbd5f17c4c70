// `switchyard run` over several ranks: the same results as over one.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/command_expectations.h"
#include "tests/temporary_directory.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;
using testing::expect_refusal;
using testing::expect_success;
using testing::read_whole;
using testing::run_command;
using testing::TemporaryDirectory;

const std::string kEnglish = SWITCHYARD_SOURCE_DIR "/examples/traces/english.safetensors";

Json run_json(std::vector<std::string> options) {
  options.insert(options.begin(), {"run", kEnglish, "--json", "--hidden", "16", "--repeat", "1"});
  const auto result = run_command(options);
  expect_success(result);
  return Json::parse(result.out);
}

TEST(RunOnRanks, FindsWhatOneRankFinds) {
  const Json one = run_json({});
  for (const char* ranks : {"2", "5", "8"}) {
    for (const char* batch : {"8192", "100"}) {
      const Json several = run_json({"--ranks", ranks, "--batch", batch});
      EXPECT_EQ(several.at("verified_values"), one.at("verified_values"));
      ASSERT_EQ(several.at("layers").size(), 4u);
      for (std::size_t i = 0; i < 4; ++i) {
        for (const char* key : {"tokens_per_expert", "mean_weight_entropy", "degenerate_rows",
                                "assignments", "max_over_mean"}) {
          EXPECT_EQ(several.at("layers")[i].at(key), one.at("layers")[i].at(key)) << key;
        }
      }
    }
  }
}

TEST(RunOnRanks, CountsWhatThePlanCounts) {
  const Json run = run_json({"--ranks", "4"});
  const auto planned = run_command({"plan", kEnglish, "--json", "--ranks", "4"});
  expect_success(planned);
  const Json plan = Json::parse(planned.out);
  for (std::size_t i = 0; i < 4; ++i) {
    for (const char* key :
         {"send_counts", "tokens_moved", "send_imbalance", "recv_imbalance", "compute_imbalance"}) {
      EXPECT_EQ(run.at("layers")[i].at(key), plan.at("layers")[i].at(key)) << key;
    }
  }
}

TEST(RunOnRanks, TakesAPlacementWithCopies) {
  const TemporaryDirectory directory;
  Json slots = Json::array();
  for (int slot = 0; slot < 72; ++slot) slots.push_back((slot * 5) % 64);
  const Json placement = {{"num_experts", 64},
                          {"num_ranks", 3},
                          {"slots_per_rank", 24},
                          {"layers", {{{"slot_to_expert", slots}}}}};
  const Json run = run_json(
      {"--ranks", "3", "--layer", "0", "--placement", directory.write("p.json", placement.dump())});
  EXPECT_EQ(run.at("verified"), true);
  EXPECT_EQ(run.at("layers")[0].at("tokens_per_expert"),
            run_json({"--layer", "0"}).at("layers")[0].at("tokens_per_expert"));
}

TEST(RunOnRanks, ShowsTheMatrixInTheReport) {
  const TemporaryDirectory directory;
  const auto result = run_command({"run", kEnglish, "--ranks", "3", "--layer", "0", "--hidden", "4",
                                   "--report", directory / "r.html"});
  expect_success(result);
  EXPECT_NE(result.out.find("3 ranks over in_process"), std::string::npos);
  EXPECT_NE(result.out.find("dispatch"), std::string::npos);
  const std::string page = read_whole(directory / "r.html");
  EXPECT_NE(page.find("\"send_counts\":[["), std::string::npos);
}

}  // namespace
}  // namespace switchyard
