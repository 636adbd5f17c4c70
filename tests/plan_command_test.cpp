// `switchyard plan` from outside: what it counts, and what it refuses.
#include <gtest/gtest.h>

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
using testing::run_command;
using testing::TemporaryDirectory;
using testing::tensor_file;

const std::string kEnglish = SWITCHYARD_SOURCE_DIR "/examples/traces/english.safetensors";

class PlanCommand : public ::testing::Test {
 protected:
  /// Four tokens, two choices each, of four experts, in layers 3 and 7.
  std::string write_trace() const {
    const std::vector<int32_t> first{0, 1, 2, 0, 3, 2, -1, 3};
    const std::vector<int32_t> second{0, 0, 0, 0, 0, 0, 0, 0};
    std::string path = (directory_ / "trace.safetensors").string();
    std::ofstream(path, std::ios::binary)
        << tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                           entry("layers.3.expert_ids", "I32", "[4,2]", 0, 32) + "," +
                           entry("layers.7.expert_ids", "I32", "[4,2]", 32, 64) + "}",
                       bytes_of(first) + bytes_of(second));
    return path;
  }
  std::string write(const std::string& name, const std::string& text) const {
    std::string path = (directory_ / name).string();
    std::ofstream(path) << text;
    return path;
  }

  TemporaryDirectory directory_;
};

TEST_F(PlanCommand, CountsWhoSendsWhatToWhom) {
  const auto result = run_command({"plan", write_trace(), "--ranks", "2", "--hidden", "10",
                                   "--dtype", "f32", "--combine-dtype", "bf16", "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("num_ranks"), 2);
  ASSERT_EQ(json.at("layers").size(), 2u);
  const Json& layer = json.at("layers")[0];
  EXPECT_EQ(layer.at("layer"), 3);
  EXPECT_EQ(layer.at("send_counts"), Json::parse("[[3, 1], [0, 3]]"));
  EXPECT_EQ(layer.at("tokens_moved"), 1);
  EXPECT_EQ(layer.at("send_imbalance"), 2.0);
  EXPECT_EQ(layer.at("recv_imbalance"), 2.0);
  EXPECT_NEAR(layer.at("compute_imbalance").get<double>(), 4 / 3.5, 1e-12);
  EXPECT_EQ(layer.at("dispatch_bytes"), 40);
  EXPECT_EQ(layer.at("combine_bytes"), 20);
  EXPECT_EQ(layer.at("deduplicated_dispatch_bytes"), 40);
  EXPECT_EQ(json.at("layers")[1].at("send_counts"), Json::parse("[[4, 0], [4, 0]]"));
  EXPECT_EQ(json.at("layers")[1].at("deduplicated_tokens_moved"), 2);
}

TEST_F(PlanCommand, RoutesLogits) {
  const auto result = run_command({"plan", kEnglish, "--ranks", "8", "--json", "--layer", "1"});
  expect_success(result);
  const Json layer = Json::parse(result.out).at("layers")[0];
  int64_t total = 0;
  for (const Json& row : layer.at("send_counts")) {
    for (const Json& count : row) total += count.get<int64_t>();
  }
  EXPECT_EQ(total, 2048 * 8);
  EXPECT_LT(layer.at("deduplicated_dispatch_bytes"), layer.at("dispatch_bytes"));
  EXPECT_GT(layer.at("predicted_dispatch_seconds"), 0.0);
}

TEST_F(PlanCommand, TakesAPlacementForAllLayersOrForEach) {
  const std::string trace = write_trace();
  const std::string head = R"({"num_experts": 4, "num_ranks": 2, "slots_per_rank": 3, "layers": [)";
  const std::string one = R"({"slot_to_expert": [3, 2, 0, 1, 0, -1]})";
  const std::string two = R"({"slot_to_expert": [1, 2, 3, 0, -1, -1]})";
  auto result = run_command({"plan", trace, "--ranks", "2", "--json", "--placement",
                             write("one.json", head + one + "]}")});
  expect_success(result);
  EXPECT_EQ(Json::parse(result.out).at("layers")[1].at("send_counts"),
            Json::parse("[[2, 2], [2, 2]]"));
  result = run_command({"plan", trace, "--ranks", "2", "--json", "--placement",
                        write("two.json", head + one + "," + two + "]}")});
  expect_success(result);
  EXPECT_EQ(Json::parse(result.out).at("layers")[1].at("send_counts"),
            Json::parse("[[0, 4], [0, 4]]"));
}

TEST_F(PlanCommand, PredictsFromMeasuredLinks) {
  const std::string results = write("perf.json", R"({"config": {"devices": [{}, {}]}, "results": [
      {"size": 1000, "out_of_place": {"time": 2.0}},
      {"size": 1000000, "out_of_place": {"time": 501.5}}]})");
  const auto result =
      run_command({"plan", write_trace(), "--ranks", "2", "--json", "--node-results", results});
  expect_success(result);
  const Json node = Json::parse(result.out).at("links").at("node");
  EXPECT_NEAR(node.at("latency_us").get<double>(), 1.5, 1e-9);
  EXPECT_NEAR(node.at("bandwidth_gbps").get<double>(), 1.0, 1e-9);
}

TEST_F(PlanCommand, PrintsATable) {
  const auto result = run_command({"plan", kEnglish, "--ranks", "4", "--nodes", "2"});
  expect_success(result);
  EXPECT_NE(result.out.find("2,048 tokens on 4 ranks, 2 nodes; 256 bf16 a token"),
            std::string::npos)
      << result.out;
}

TEST_F(PlanCommand, RefusesWithOneLine) {
  const std::string trace = write_trace();
  const auto refuses = [&](std::vector<std::string> options, const std::string& part) {
    options.insert(options.begin(), {"plan", trace});
    SCOPED_TRACE(part);
    expect_refusal(run_command(options), part);
  };
  refuses({}, "--ranks is required");
  refuses({"--ranks", "0"}, "--ranks is 0, must be in [1, 4096]");
  refuses({"--ranks", "5000"}, "--ranks is 5000, must be in [1, 4096]");
  refuses({"--ranks", "4", "--nodes", "3"}, "--ranks is 4, must be a multiple of --nodes, 3");
  refuses({"--ranks", "2", "--hidden", "0"}, "--hidden is 0");
  refuses({"--ranks", "2", "--dtype", "int8"}, "--dtype is 'int8'");
  refuses({"--ranks", "2", "--combine-dtype", "f64"}, "--combine-dtype is 'f64'");
  refuses({"--ranks", "2", "--top-k", "2"}, "--top-k changes nothing");
  refuses({"--ranks", "2", "--node-link", "5"}, "--node-link is '5', must be LATENCY_US:GBPS");
  refuses({"--ranks", "2", "--node-link", "5:0"}, "node.bandwidth_gbps is 0");
  refuses({"--ranks", "2", "--node-results", (directory_ / "no").string()}, "cannot read");
  refuses({"--ranks", "2", "--placement", (directory_ / "no").string()}, "cannot read");
  refuses({"--ranks", "2", "--placement", write("text.json", "hello")}, "is no placement");
  const auto placed = [&](const std::string& head, const std::string& slots) {
    return write("p.json", "{" + head + R"(, "layers": [{"slot_to_expert": [)" + slots + "]}]}");
  };
  refuses({"--ranks", "2", "--placement", placed(R"("num_experts": 4, "num_ranks": 2)", "0,1,2,2")},
          "layers[0]: placement has no slot for expert 3");
  refuses({"--ranks", "2", "--placement", placed(R"("num_experts": 4, "num_ranks": 4)", "0,1,2,3")},
          "is for 4 ranks, --ranks is 2");
  refuses({"--ranks", "2", "--placement", placed(R"("num_experts": 2, "num_ranks": 2)", "0,1")},
          "is for 2 experts, ");
  refuses({"--ranks", "2", "--placement",
           placed(R"("num_experts": 4, "num_ranks": 2, "slots_per_rank": 3)", "0,1,2,3")},
          "layers[0] has 4 slots, must have 6");
}

}  // namespace
}  // namespace switchyard
