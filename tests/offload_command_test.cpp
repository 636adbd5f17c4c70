// `switchyard offload` from outside: what it counts, chooses and writes, and what it refuses.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/command_expectations.h"
#include "tests/temporary_directory.h"
#include "tests/tensor_bytes.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;
using testing::bytes_of;
using testing::entry;
using testing::expect_refusal;
using testing::expect_success;
using testing::read_whole;
using testing::run_command;
using testing::TemporaryDirectory;
using testing::tensor_file;

const std::string kEnglish = SWITCHYARD_SOURCE_DIR "/examples/traces/english.safetensors";
const std::string kDecode =
    SWITCHYARD_SOURCE_DIR "/../shared/traces/gpt-oss-20b/decode.safetensors";

class OffloadCommand : public ::testing::Test {
 protected:
  /// Six tokens, one choice each, of four experts, in layers 3 and 7.
  std::string write_trace() const {
    const std::vector<int32_t> first{0, 1, 2, 0, 3, 0};
    const std::vector<int32_t> second{1, 1, 1, -1, 1, 1};
    std::string path = (directory_ / "trace.safetensors").string();
    std::ofstream(path, std::ios::binary)
        << tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                           entry("layers.3.expert_ids", "I32", "[6,1]", 0, 24) + "," +
                           entry("layers.7.expert_ids", "I32", "[6,1]", 24, 48) + "}",
                       bytes_of(first) + bytes_of(second));
    return path;
  }
  static Json replay(const std::string& trace, std::vector<std::string> options) {
    options.insert(options.begin(), {"offload", trace});
    options.emplace_back("--json");
    const auto result = run_command(options);
    expect_success(result);
    return Json::parse(result.out);
  }

  TemporaryDirectory directory_;
};

TEST_F(OffloadCommand, CountsOfEveryPolicy) {
  const std::string trace = write_trace();
  const std::vector<std::pair<std::string, int>> hits_of_layer3 = {
      {"lru", 2}, {"lfu", 2}, {"adaptive", 2}, {"affinity", 2}, {"belady", 2}};
  for (const auto& [policy, hits] : hits_of_layer3) {
    SCOPED_TRACE(policy);
    const Json json = replay(trace, {"--fast-slots", "2", "--policy", policy});
    const Json& layer = json.at("layers")[0];
    EXPECT_EQ(layer.at("layer"), 3);
    EXPECT_LE(layer.at("hits"), hits);
    EXPECT_EQ(layer.at("hits").get<int>() + layer.at("misses").get<int>(), 6);
    EXPECT_EQ(json.at("layers")[1].at("hits"), 4);  // padding is no access
    EXPECT_EQ(json.at("layers")[1].at("misses"), 1);
    EXPECT_EQ(json.at("hits").get<int>() + json.at("misses").get<int>(), 11);
    EXPECT_EQ(json.at("page_ins"), json.at("misses"));
    EXPECT_EQ(json.at("page_ins").get<int>() - json.at("evictions").get<int>(), 3);
    EXPECT_EQ(json.at("sacrificed_mass_mean"), 0.0);
    EXPECT_EQ(json.at("sacrificed_mass_max"), 0.0);
    EXPECT_EQ(json.at("plain").at(policy).at("hits"), json.at("hits"));
  }
  EXPECT_EQ(replay(trace, {"--fast-slots", "2", "--policy", "belady"}).at("layers")[0].at("hits"),
            2);
  EXPECT_EQ(replay(trace, {"--fast-slots", "2", "--policy", "lru"}).at("layers")[0].at("hits"), 1);
}

TEST_F(OffloadCommand, NoSlotsHoldNothing) {
  const Json json = replay(write_trace(), {"--fast-slots", "0"});
  EXPECT_EQ(json.at("hit_rate"), 0.0);
  EXPECT_EQ(json.at("page_ins"), 0);
  EXPECT_EQ(json.at("misses"), 11);
}

TEST_F(OffloadCommand, SlotsForAllMissEachOnce) {
  const Json json = replay(kEnglish, {"--fast-slots", "64", "--layer", "1"});
  EXPECT_LE(json.at("misses"), 64);
  EXPECT_EQ(json.at("evictions"), 0);
  EXPECT_EQ(json.at("hits").get<int>() + json.at("misses").get<int>(), 2048 * 8);
}

TEST_F(OffloadCommand, ABoundBuysHits) {
  const Json plain = replay(kEnglish, {"--fast-slots", "24", "--epsilon", "0"});
  double before = plain.at("hit_rate");
  EXPECT_EQ(plain.at("sacrificed_mass_max"), 0.0);
  EXPECT_EQ(plain.at("hits"), plain.at("plain").at("affinity").at("hits"));
  for (const char* epsilon : {"0.01", "0.02", "0.05"}) {
    SCOPED_TRACE(epsilon);
    const Json json = replay(kEnglish, {"--fast-slots", "24", "--epsilon", epsilon});
    EXPECT_GT(json.at("hit_rate"), before + 0.02);
    EXPECT_GT(json.at("sacrificed_mass_mean"), 0.0);
    EXPECT_LE(json.at("sacrificed_mass_max").get<double>(), std::atof(epsilon));
    before = json.at("hit_rate");
  }
  const Json kept = replay(kEnglish, {"--fast-slots", "24", "--epsilon", "0.05", "--keep", "8"});
  EXPECT_EQ(kept.at("hits"), plain.at("hits"));
}

TEST_F(OffloadCommand, TheBonusFollowsAHitRate) {
  const Json json =
      replay(kEnglish, {"--fast-slots", "24", "--target-hit-rate", "0.72", "--bonus-scale",
                        "spread", "--epsilon", "0.05", "--bonus", "0"});
  EXPECT_GT(json.at("last_bonus"), 0.0);
  EXPECT_NEAR(json.at("hit_rate").get<double>(), 0.73, 0.03);
}

TEST_F(OffloadCommand, PrefetchesWhatPays) {
  const Json json = replay(kEnglish, {"--fast-slots", "24", "--prefetch"});
  EXPECT_GT(json.at("prefetches"), 100);
  EXPECT_GT(json.at("prefetch_hits").get<double>(), 0.6 * json.at("prefetches").get<double>());
  EXPECT_LT(json.at("estimated_seconds"), json.at("plain").at("affinity").at("estimated_seconds"));
  const Json dear = replay(
      kEnglish, {"--fast-slots", "24", "--prefetch", "--miss-us", "1", "--upload-gbps", "0.001"});
  EXPECT_EQ(dear.at("prefetches"), 0);
}

TEST_F(OffloadCommand, AffinityPassesLruOnARealTrace) {
  if (!std::filesystem::exists(kDecode)) GTEST_SKIP() << kDecode << " is not here";
  const Json json = replay(kDecode, {"--fast-slots", "12", "--policy", "affinity"});
  EXPECT_GT(json.at("hit_rate"), 0.8);
  EXPECT_LT(json.at("plain").at("lru").at("hit_rate"), 0.78);
  EXPECT_GT(json.at("plain").at("belady").at("hit_rate"), 0.87);
}

TEST_F(OffloadCommand, PrintsATable) {
  const auto result = run_command({"offload", write_trace(), "--fast-slots", "2"});
  expect_success(result);
  EXPECT_NE(result.out.find("6 tokens, top 1 of 4, 2 layers; 2 fast slots each"), std::string::npos)
      << result.out;
  EXPECT_NE(result.out.find("this: affinity"), std::string::npos);
}

TEST_F(OffloadCommand, WritesAReport) {
  const std::string path = (directory_ / "report.html").string();
  const auto result = run_command({"offload", kEnglish, "--fast-slots", "16", "--layer", "0",
                                   "--epsilon", "0.02", "--report", path});
  expect_success(result);
  const std::string page = read_whole(path);
  EXPECT_NE(page.find("<title>switchyard offload</title>"), std::string::npos);
  EXPECT_NE(page.find("\"by_slots\":{\"lru\":[[8,"), std::string::npos);
  EXPECT_NE(page.find("\"by_share\":[{\"epsilon\":0.0,"), std::string::npos);
  EXPECT_EQ(page.find("{{offload}}"), std::string::npos);
}

TEST_F(OffloadCommand, RefusesWithOneLine) {
  const std::string trace = write_trace();
  const std::string report = (directory_ / "report.html").string();
  const auto refuses = [&](const std::string& source, std::vector<std::string> options,
                           const std::string& part) {
    options.insert(options.begin(), {"offload", source, "--report", report});
    SCOPED_TRACE(part);
    expect_refusal(run_command(options), part);
    EXPECT_FALSE(std::filesystem::exists(report));
  };
  refuses(trace, {}, "--fast-slots is required");
  refuses(trace, {"--fast-slots", "-1"}, "--fast-slots is -1, must be in [0, 4]");
  refuses(trace, {"--fast-slots", "5"}, "--fast-slots is 5, must be in [0, 4]");
  refuses(trace, {"--fast-slots", "2", "--policy", "fifo"},
          "--policy is 'fifo', must be lru, lfu, adaptive, affinity or belady");
  refuses(trace, {"--fast-slots", "2", "--bonus", "0.5"}, "--bonus changes nothing: ");
  refuses(trace, {"--fast-slots", "2", "--tau", "0.5"}, "--tau changes nothing: ");
  refuses(trace, {"--fast-slots", "2", "--epsilon", "0.5"}, "--epsilon changes nothing: ");
  refuses(trace, {"--fast-slots", "2", "--target-hit-rate", "0.5"},
          "--target-hit-rate changes nothing: ");
  refuses(trace, {"--fast-slots", "2", "--top-k", "2"}, "--top-k changes nothing");
  refuses(trace, {"--fast-slots", "2", "--decay", "0"}, "--decay is 0, must be in [1e-06, 1]");
  refuses(trace, {"--fast-slots", "2", "--miss-us", "nan"}, "--miss-us is nan");
  refuses(trace, {"--fast-slots", "2", "--upload-gbps", "0"}, "--upload-gbps is 0");
  refuses(trace, {"--fast-slots", "2", "--expert-bytes", "0"}, "--expert-bytes is 0");
  refuses(trace, {"--fast-slots", "2", "--prefetch-budget", "0"}, "--prefetch-budget is 0");
  refuses(kEnglish, {"--fast-slots", "65"}, "--fast-slots is 65, must be in [0, 64]");
  refuses(kEnglish, {"--fast-slots", "8", "--bonus", "nan"}, "--bonus is nan");
  refuses(kEnglish, {"--fast-slots", "8", "--bonus", "-1"}, "--bonus is -1, must be in [0, inf]");
  refuses(kEnglish, {"--fast-slots", "8", "--epsilon", "nan"}, "--epsilon is nan");
  refuses(kEnglish, {"--fast-slots", "8", "--tau", "-0.5"}, "--tau is -0.5");
  refuses(kEnglish, {"--fast-slots", "8", "--keep", "9"}, "--keep is 9, must be in [0, 8]");
  refuses(kEnglish, {"--fast-slots", "8", "--bonus-scale", "log"},
          "--bonus-scale is 'log', must be absolute or spread");
  refuses(kEnglish, {"--fast-slots", "8", "--target-hit-rate", "1.5"}, "--target-hit-rate is 1.5");
  refuses(kEnglish, {"--fast-slots", "8", "--target-hit-rate", "0.9", "--bonus", "2"},
          "--bonus is 2, must be in [0, 1]");
  refuses(kEnglish, {"--fast-slots", "8", "--epsilon", "0.1", "--policy", "belady"},
          "--epsilon changes the choice, which belady has to know beforehand");
  refuses((directory_ / "no").string(), {"--fast-slots", "2"}, "cannot be opened");
}

}  // namespace
}  // namespace switchyard
