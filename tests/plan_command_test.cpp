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
  for (const char* direction : {"dispatch_links", "combine_links"}) {
    const Json node = Json::parse(result.out).at("layers")[0].at(direction).at("node");
    EXPECT_NEAR(node.at("latency_us").get<double>(), 1.5, 1e-9);
    EXPECT_NEAR(node.at("bandwidth_gbps").get<double>(), 1.0, 1e-9);
  }
}

TEST_F(PlanCommand, FitsLinksToTheSizeOfEachLayersExchange) {
  // 10 GB/s for little, 1 GB/s for much, between two ranks: each sends half of it.
  const std::string results = write("perf.json", R"({"config": {"devices": [{}, {}]}, "results": [
      {"size": 1000, "out_of_place": {"time": 0.05}},
      {"size": 2000, "out_of_place": {"time": 0.1}},
      {"size": 1000000, "out_of_place": {"time": 500}},
      {"size": 2000000, "out_of_place": {"time": 1000}}]})");
  const auto gbps = [&](const char* option, const char* nodes, const char* hidden) {
    const auto result =
        run_command({"plan", write_trace(), "--ranks", "2", "--nodes", nodes, "--hidden", hidden,
                     "--combine-dtype", "fp8", "--json", option, results});
    expect_success(result);
    const Json layer = Json::parse(result.out).at("layers")[1];
    const char* const link = std::string(nodes) == "1" ? "node" : "network";
    return std::pair(layer.at("dispatch_links").at(link).at("bandwidth_gbps").get<double>(),
                     layer.at("combine_links").at(link).at("bandwidth_gbps").get<double>());
  };
  for (const auto& [option, nodes] :
       {std::pair{"--node-results", "1"}, {"--network-results", "2"}}) {
    // Four rows of 200 bytes move, then of 200,000, then between the sizes.
    EXPECT_NEAR(gbps(option, nodes, "100").first, 10.0, 1e-6);
    EXPECT_NEAR(gbps(option, nodes, "100000").first, 1.0, 1e-6);
    EXPECT_NEAR(gbps(option, nodes, "100000").second, 1.0, 1e-6);
    EXPECT_NEAR(gbps(option, nodes, "100").second, 10.0, 1e-6);
  }
}

TEST_F(PlanCommand, CountsPassesOverASharedMemory) {
  const auto seconds = [&](std::vector<std::string> options) {
    options.insert(options.begin(), {"plan", write_trace(), "--ranks", "2", "--json", "--node-link",
                                     "0:1", "--shared-node-link"});
    const auto result = run_command(options);
    expect_success(result);
    const Json layer = Json::parse(result.out).at("layers")[0];
    return std::pair(layer.at("predicted_dispatch_seconds").get<double>(),
                     layer.at("predicted_combine_seconds").get<double>());
  };
  const double once = 7 * 512e-9 / 2;  // of two, as an all-to-all takes
  EXPECT_NEAR(seconds({}).first, 1.5 * once, 1e-12);
  EXPECT_NEAR(seconds({"--rows", "lent"}).second, 1.5 * once, 1e-12);
  EXPECT_NEAR(seconds({"--rows", "staged"}).first, 2.0 * once, 1e-12);
  EXPECT_NEAR(seconds({"--rows", "staged"}).second, 2.5 * once, 1e-12);
  EXPECT_NEAR(seconds({"--rows", "messages"}).second, 3.5 * once, 1e-12);
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
  refuses({"--ranks", "2", "--rows", "lent"}, "--rows requires --shared-node-link");
  refuses({"--ranks", "2", "--shared-node-link", "--rows", "x"},
          "--rows is 'x', must be lent, staged or messages");
  const std::string one = R"({"config": {"devices": [{}, {}]}, "results": [
      {"size": 1000, "out_of_place": {"time": 2.0}}]})";
  refuses({"--ranks", "2", "--node-results", write("one_size.json", one)},
          "one_size.json: timings hold 1 measurements");
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
