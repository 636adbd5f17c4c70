// `switchyard place` and `switchyard simulate` from outside: what they write, and what they refuse.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/plain_placement.h"
#include "tests/command_expectations.h"
#include "tests/http_get.h"
#include "tests/placement_loads.h"
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

class PlaceCommand : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) const {
    return directory_.write(name, text).string();
  }
  std::string out(const std::string& name) const { return (directory_ / name).string(); }
  std::string loads(const std::string& name, int64_t num_layers, int64_t num_experts,
                    uint64_t seed) const {
    const test::ExpertLoads made = test::sample_of(
        test::log_normal_loads(num_layers, num_experts, 0.8, seed), 1e6, seed + 1000);
    Json rows = Json::array();
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      const auto row = made.layer(layer);
      rows.push_back(std::vector<double>(row.begin(), row.end()));
    }
    return write(name, Json{{"loads", rows}}.dump());
  }
  static Json parsed(const std::string& path) { return Json::parse(read_whole(path)); }

  TemporaryDirectory directory_;
};

TEST_F(PlaceCommand, WritesThePlacementInItsFixedForm) {
  const std::string path = out("p.json");
  expect_success(run_command({"place", loads("l.json", 3, 16, 1), "--ranks", "4", "--nodes", "2",
                              "--slots", "20", "--out", path}));
  const Json file = parsed(path);
  EXPECT_EQ(file.at("num_experts"), 16);
  EXPECT_EQ(file.at("num_ranks"), 4);
  EXPECT_EQ(file.at("num_nodes"), 2);
  EXPECT_EQ(file.at("slots_per_rank"), 5);
  EXPECT_EQ(file.at("moved_slots"), 0);
  ASSERT_EQ(file.at("layers").size(), 3u);
  const Json rows = parsed(out("l.json")).at("loads");
  for (size_t layer = 0; layer < 3; ++layer) {
    const auto slots = file.at("layers")[layer].at("slot_to_expert").get<std::vector<int32_t>>();
    const auto values = rows[layer].get<std::vector<double>>();
    ASSERT_EQ(slots.size(), 20u);
    EXPECT_EQ(bench::count_twins(slots, 4), 0);
    EXPECT_NEAR(bench::plain_max_over_mean(values, slots, 4),
                file.at("layers")[layer].at("max_over_mean").get<double>(), 1e-12);
  }
}

TEST_F(PlaceCommand, MakesWhatPlanAndRunTake) {
  const std::string path = out("p.json");
  expect_success(run_command({"place", kEnglish, "--ranks", "4", "--slots", "72", "--out", path}));
  const auto planned =
      run_command({"plan", kEnglish, "--ranks", "4", "--placement", path, "--json"});
  expect_success(planned);
  const Json plan = Json::parse(planned.out);
  for (const Json& layer : plan.at("layers")) {
    EXPECT_LT(layer.at("compute_imbalance"), 1.01);
  }
  const auto ran = run_command(
      {"run", kEnglish, "--ranks", "4", "--placement", path, "--hidden", "16", "--repeat", "1"});
  expect_success(ran);
  EXPECT_NE(ran.out.find("bit for bit"), std::string::npos);
}

TEST_F(PlaceCommand, PutsCopiesOnOneRankOnlyWhereToldSo) {
  const std::string path = write("l.json", R"({"loads": [[3, 6, 1, 24, 12]]})");
  std::vector<std::string> command{"place",   path, "--ranks", "2",
                                   "--slots", "8",  "--out",   out("p.json")};
  const auto twins = [&] {
    expect_success(run_command(command));
    const Json slots = parsed(out("p.json")).at("layers")[0].at("slot_to_expert");
    return bench::count_twins(slots.get<std::vector<int32_t>>(), 2);
  };
  EXPECT_EQ(twins(), 0);
  command.emplace_back("--repeat-on-rank");
  EXPECT_GT(twins(), 0);
  EXPECT_EQ(parsed(out("p.json")).at("layers")[0].at("max_over_mean"), 1.0);
  expect_success(run_command(
      {"simulate", path, "--ranks", "2", "--slots", "8", "--repeat-on-rank", "--windows", "3"}));
}

/// Placements that engines made themselves have copies on one rank.
TEST_F(PlaceCommand, CopiesOnOneRankAreTakenWhereverAPlacementIs) {
  std::vector<int32_t> slots;
  for (int32_t rank = 0; rank < 4; ++rank) {
    for (int32_t i = 0; i < 16; ++i) slots.push_back(rank * 16 + i);
    slots.insert(slots.end(), {rank * 16, rank * 16, 5});
  }
  const std::string path =
      write("p.json",
            Json{{"num_experts", 64}, {"num_ranks", 4}, {"layers", {{{"slot_to_expert", slots}}}}}
                .dump());
  expect_success(run_command({"plan", kEnglish, "--ranks", "4", "--placement", path}));
  const auto ran = run_command(
      {"run", kEnglish, "--ranks", "4", "--placement", path, "--hidden", "16", "--repeat", "1"});
  expect_success(ran);
  EXPECT_NE(ran.out.find("bit for bit"), std::string::npos);
  expect_success(
      run_command({"place", kEnglish, "--ranks", "4", "--previous", path, "--out", out("q.json")}));
}

TEST_F(PlaceCommand, CountsTheChoicesOfATrace) {
  const std::vector<int32_t> ids{0, 1, 0, 2, 0, 3, -1, -1};
  std::ofstream(out("t.safetensors"), std::ios::binary)
      << tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                         entry("layers.5.expert_ids", "I32", "[4,2]", 0, 32) + "}",
                     bytes_of(ids));
  const auto result = run_command(
      {"place", out("t.safetensors"), "--ranks", "2", "--out", out("p.json"), "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("layers")[0].at("layer"), 5);
  EXPECT_NEAR(json.at("layers")[0].at("max_over_mean").get<double>(), 4.0 / 3.0, 1e-12);
  EXPECT_NEAR(json.at("layers")[0].at("max_over_mean_before").get<double>(), 4.0 / 3.0, 1e-12);
}

TEST_F(PlaceCommand, ChangesThePreviousPlacementWithinABudget) {
  const std::string first = out("first.json");
  expect_success(run_command(
      {"place", loads("a.json", 4, 64, 1), "--ranks", "8", "--slots", "80", "--out", first}));
  const std::string second = out("second.json");
  const auto result =
      run_command({"place", loads("b.json", 4, 64, 50), "--ranks", "8", "--previous", first,
                   "--max-moves", "32", "--expert-bytes", "1000", "--out", second, "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("verdict"), "changed");
  EXPECT_GT(json.at("moved_slots"), 0);
  EXPECT_LE(json.at("moved_slots"), 32);
  EXPECT_LE(json.at("moved_bytes").get<int64_t>(), json.at("moved_slots").get<int64_t>() * 1000);
  EXPECT_GT(json.at("moved_bytes").get<int64_t>(), 10'000);
  const Json was = parsed(first);
  const Json is = parsed(second);
  EXPECT_EQ(is.at("moved_slots"), json.at("moved_slots"));
  int64_t moved = 0;
  for (size_t layer = 0; layer < 4; ++layer) {
    for (size_t slot = 0; slot < 80; ++slot) {
      const Json& now = is.at("layers")[layer].at("slot_to_expert")[slot];
      moved += now != was.at("layers")[layer].at("slot_to_expert")[slot] ? 1 : 0;
    }
    EXPECT_LT(json.at("layers")[layer].at("max_over_mean"),
              json.at("layers")[layer].at("max_over_mean_before"));
  }
  EXPECT_EQ(moved, json.at("moved_slots"));
}

TEST_F(PlaceCommand, RefusesAChangeThatDoesNotPay) {
  const std::string first = out("first.json");
  expect_success(run_command(
      {"place", loads("a.json", 2, 64, 1), "--ranks", "8", "--slots", "80", "--out", first}));
  const auto result =
      run_command({"place", loads("b.json", 2, 64, 50), "--ranks", "8", "--previous", first,
                   "--us-per-token", "0.1", "--pause", "15", "--out", out("second.json")});
  expect_success(result);
  EXPECT_NE(result.out.find("not worth its cost: 0 of 160 slots moved"), std::string::npos)
      << result.out;
  EXPECT_EQ(parsed(out("second.json")).at("layers")[1].at("slot_to_expert"),
            parsed(first).at("layers")[1].at("slot_to_expert"));
}

TEST_F(PlaceCommand, PrintsATable) {
  const auto result =
      run_command({"place", kEnglish, "--ranks", "8", "--slots", "72", "--out", out("p.json")});
  expect_success(result);
  EXPECT_NE(result.out.find("64 experts in 72 slots of 8 ranks, 1 nodes"), std::string::npos);
  EXPECT_NE(result.out.find("mean"), std::string::npos);
}

TEST_F(PlaceCommand, RefusesWithOneLineAndWritesNothing) {
  const std::string good = loads("l.json", 2, 8, 1);
  const std::string path = out("p.json");
  const auto refuses = [&](const std::string& input, std::vector<std::string> options,
                           const std::string& part) {
    options.insert(options.begin(), {"place", input, "--out", path});
    SCOPED_TRACE(part);
    expect_refusal(run_command(options), part);
    EXPECT_FALSE(std::filesystem::exists(path));
  };
  const auto holds = [&](const std::string& text) { return write("bad.json", text); };
  expect_refusal(run_command({"place", good, "--ranks", "2"}), "--out is required");
  refuses(good, {}, "--ranks is required");
  refuses(good, {"--ranks", "0"}, "--ranks is 0, must be in [1, 4096]");
  refuses(good, {"--ranks", "4", "--nodes", "3"}, "--ranks is 4, must be a multiple of --nodes, 3");
  refuses(good, {"--ranks", "4", "--slots", "4"}, "--slots is 4, must be in [8,");
  refuses(good, {"--ranks", "4", "--slots", "9"}, "--slots is 9, must be a multiple of --ranks, 4");
  refuses(good, {"--ranks", "4", "--groups", "3"},
          "the number of experts is 8, must be a multiple of --groups, 3");
  refuses(good, {"--ranks", "4", "--hierarchical", "--global"}, "excludes --");
  refuses(good, {"--ranks", "2", "--speeds", "1"}, "rank_speeds has 1 elements");
  refuses(good, {"--ranks", "2", "--speeds", "1,0"}, "rank_speeds[1] is 0");
  refuses(good, {"--ranks", "2", "--speeds", "1,nan"}, "rank_speeds[1] is nan");
  refuses(good, {"--ranks", "2", "--speeds", "1,x"}, "--speeds");
  refuses(good, {"--ranks", "2", "--max-moves", "1"}, "--max-moves requires --previous");
  refuses(good, {"--ranks", "2", "--top-k", "1"}, "--top-k changes nothing");
  refuses(good, {"--ranks", "2", "--threads", "-1"}, "--threads is -1");
  refuses(good, {"--ranks", "2", "--expert-bytes", "-1"}, "bytes_per_slot is -1");
  refuses(out("none.json"), {"--ranks", "2"}, "No such file");
  refuses(holds("hello"), {"--ranks", "2"}, "is neither a trace nor loads");
  refuses(holds("{}"), {"--ranks", "2"}, "is neither a trace nor loads");
  refuses(holds(R"({"loads": []})"), {"--ranks", "2"}, "holds no loads");
  refuses(holds(R"({"loads": [[1, 2], [3]]})"), {"--ranks", "2"},
          "loads[1] has 1 experts, loads[0] has 2");
  refuses(holds(R"({"loads": [[1, -2]]})"), {"--ranks", "2"},
          "loads[0][1] is -2.0, must be finite and 0 or more");
  refuses(holds(R"({"loads": [[1, null]]})"), {"--ranks", "2"}, "is neither a trace nor loads");
  refuses(holds(R"({"loads": [[1, NaN]]})"), {"--ranks", "2"}, "is neither a trace nor loads");
  refuses(holds(R"({"loads": [[1, 1e999]]})"), {"--ranks", "2"}, "is neither a trace nor loads");
}

TEST_F(PlaceCommand, RefusesAPreviousPlacementOfAnotherShape) {
  const std::string good = loads("l.json", 2, 8, 1);
  const std::string path = out("p.json");
  const auto refuses = [&](const std::string& previous, std::vector<std::string> options,
                           const std::string& part) {
    options.insert(options.begin(),
                   {"place", good, "--out", path, "--previous", write("previous.json", previous)});
    SCOPED_TRACE(part);
    expect_refusal(run_command(options), part);
    EXPECT_FALSE(std::filesystem::exists(path));
  };
  const std::string layer = R"({"slot_to_expert": [0, 1, 2, 3, 4, 5, 6, 7]})";
  const auto placed = [&](int experts, int ranks, const std::string& layers) {
    return Json{{"num_experts", experts}, {"num_ranks", ranks}, {"layers", Json::parse(layers)}}
        .dump();
  };
  refuses(placed(8, 4, "[" + layer + "]"), {"--ranks", "2"}, "is for 4 ranks, --ranks is 2");
  refuses(placed(8, 2, "[" + layer + "]"), {"--ranks", "2", "--slots", "10"},
          "has 8 slots, --slots is 10");
  refuses(placed(8, 2, "[" + layer + "," + layer + "," + layer + "]"), {"--ranks", "2"},
          "is for 3 layers");
  refuses(placed(8, 2, "[" + layer + "]"), {"--ranks", "2", "--max-moves", "-1"},
          "max_moved_slots is -1, must be 0 or more");
  refuses("hello", {"--ranks", "2"}, "is no placement");
  refuses(placed(9, 2, "[" + layer + "]"), {"--ranks", "2"}, "num_slots is 8, must be in [9,");
}

using SimulateCommand = PlaceCommand;

#ifdef SWITCHYARD_PROMETHEUS
TEST_F(SimulateCommand, ServesMetricsWhileItRunsAndForAWhileAfterwards) {
  const int port = test::free_port();
  const std::string address = "127.0.0.1:" + std::to_string(port);
  const std::string file = loads("l.json", 4, 64, 1);
  testing::CommandResult result;
  std::atomic<bool> is_running{true};
  std::thread command([&] {
    result =
        run_command({"simulate", file, "--ranks", "8", "--slots", "80", "--windows", "4", "--drift",
                     "0.3", "--metrics-address", address, "--metrics-seconds", "3", "--json"});
    is_running = false;
  });
  // The last answer holds all windows: it is served for seconds after them.
  std::string answer;
  while (is_running) {
    const std::string next = test::http_get(port, "/metrics");
    if (next.find("switchyard_moved_slots_total") != std::string::npos) answer = next;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  command.join();
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "serving metrics at http://" + address + "/metrics\n");
  // Three windows behind the first, of four layers.
  EXPECT_NE(answer.find("switchyard_routings_total{layer=\"3\"} 3"), std::string::npos) << answer;
  const Json budgeted = Json::parse(result.out).at("policies")[2];
  EXPECT_NE(answer.find("switchyard_moved_slots_total " +
                        std::to_string(budgeted.at("moved_slots").get<int64_t>())),
            std::string::npos)
      << answer;
  EXPECT_NE(answer.find("switchyard_exchange_duration_seconds_count 3"), std::string::npos);
}

TEST_F(SimulateCommand, RefusesAnAddressThatIsNone) {
  const std::string file = loads("l.json", 4, 64, 1);
  expect_refusal(run_command({"simulate", file, "--ranks", "8", "--metrics-address", "nowhere"}),
                 "nowhere");
  expect_refusal(run_command({"simulate", file, "--ranks", "8", "--metrics-seconds", "1"}),
                 "--metrics-seconds needs --metrics-address");
}
#endif

TEST_F(SimulateCommand, ComparesPoliciesOnDriftingLoads) {
  const auto result = run_command({"simulate", loads("l.json", 4, 64, 1), "--ranks", "8", "--slots",
                                   "80", "--windows", "12", "--drift", "0.2", "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_TRUE(json.at("synthetic"));
  EXPECT_EQ(json.at("num_windows"), 12);
  ASSERT_EQ(json.at("policies").size(), 3u);
  const Json& none = json.at("policies")[0];
  const Json& periodic = json.at("policies")[1];
  const Json& budgeted = json.at("policies")[2];
  EXPECT_EQ(none.at("moved_bytes"), 0);
  EXPECT_EQ(none.at("windows").size(), 11u);
  EXPECT_EQ(periodic.at("changes"), 2);
  EXPECT_LT(periodic.at("mean_max_over_mean"), none.at("mean_max_over_mean"));
  EXPECT_LT(budgeted.at("mean_max_over_mean"), none.at("mean_max_over_mean"));
  EXPECT_GT(budgeted.at("moved_slots"), 0);
  for (const Json& policy : json.at("policies")) {
    EXPECT_GT(policy.at("seconds"), 0.0);
    double sum = 0.0;
    for (const Json& window : policy.at("windows")) sum += window.at("seconds").get<double>();
    EXPECT_NEAR(sum, policy.at("seconds").get<double>(), 1e-9);
  }
}

TEST_F(SimulateCommand, KeepsToTheBudgetOfEachChange) {
  const auto result =
      run_command({"simulate", loads("l.json", 4, 64, 1), "--ranks", "8", "--slots", "80",
                   "--shift-every", "4", "--policy", "budgeted", "--max-moves", "7", "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  for (const Json& window : json.at("policies")[0].at("windows")) {
    EXPECT_LE(window.at("moved_slots"), 7);
  }
}

TEST_F(SimulateCommand, GivesTheSameNumbersForTheSameSeed) {
  const std::string file = loads("l.json", 2, 16, 1);
  const auto run_with = [&](const std::string& seed, const std::string& threads) {
    return run_command(
               {"simulate", file, "--ranks", "4", "--seed", seed, "--threads", threads, "--json"})
        .out;
  };
  EXPECT_EQ(run_with("5", "1"), run_with("5", "2"));
  EXPECT_NE(run_with("5", "1"), run_with("6", "1"));
}

TEST_F(SimulateCommand, ReplaysATraceWindowByWindow) {
  const auto result =
      run_command({"simulate", kEnglish, "--ranks", "8", "--slots", "72", "--window", "300",
                   "--policy", "none,budgeted", "--report", out("page.html"), "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_FALSE(json.at("synthetic"));
  EXPECT_EQ(json.at("num_windows"), 6);
  EXPECT_EQ(json.at("policies").size(), 2u);
  const std::string page = read_whole(out("page.html"));
  EXPECT_NE(page.find("\"policies\":["), std::string::npos);
  EXPECT_EQ(page.find("{{run}}"), std::string::npos);
}

TEST_F(SimulateCommand, PrintsATable) {
  const auto result = run_command(
      {"simulate", loads("l.json", 2, 16, 1), "--ranks", "4", "--nodes", "2", "--windows", "3"});
  expect_success(result);
  EXPECT_NE(result.out.find("3 windows of 1,000,000 assignments a layer, made up with seed 1"),
            std::string::npos)
      << result.out;
}

TEST_F(SimulateCommand, RefusesWithOneLineAndWritesNothing) {
  const std::string good = loads("l.json", 2, 8, 1);
  const std::string page = out("page.html");
  const auto refuses = [&](const std::string& input, std::vector<std::string> options,
                           const std::string& part) {
    options.insert(options.begin(), {"simulate", input, "--report", page});
    SCOPED_TRACE(part);
    expect_refusal(run_command(options), part);
    EXPECT_FALSE(std::filesystem::exists(page));
  };
  refuses(good, {}, "--ranks is required");
  refuses(good, {"--ranks", "1024", "--slots", "1024"}, "--ranks is 1024, must be in [1, 512]");
  refuses(good, {"--ranks", "2", "--policy", "often"},
          "--policy is 'often', must be none, periodic or budgeted");
  refuses(good, {"--ranks", "2", "--windows", "1"}, "--windows is 1, must be in [2,");
  refuses(good, {"--ranks", "2", "--window", "-5"}, "--window is -5");
  refuses(good, {"--ranks", "2", "--drift", "nan"}, "--drift is nan, must be in [0, 10]");
  refuses(good, {"--ranks", "2", "--shift-every", "-1"}, "--shift-every is -1");
  refuses(good, {"--ranks", "2", "--period", "0"}, "--period is 0");
  refuses(good, {"--ranks", "2", "--decay", "1"}, "decay is 1, must be in [0, 1)");
  refuses(good, {"--ranks", "2", "--row-bytes", "0"}, "--row-bytes is 0");
  refuses(good, {"--ranks", "2", "--max-moves", "-1"}, "max_moved_slots is -1");
  refuses(good, {"--ranks", "2", "--node-link", "5"}, "--node-link is '5'");
  refuses(kEnglish, {"--ranks", "2", "--window", "2000"},
          "has 2048 tokens, two windows of 2000 need more");
}

}  // namespace
}  // namespace switchyard
