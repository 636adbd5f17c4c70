// What Prometheus scrapes: names, values, addresses, and the dashboard that shows them.
#include "switchyard/prometheus_exporter.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "switchyard/errors.h"
#include "tests/http_get.h"
#include "tests/refusal.h"
#include "tests/temporary_directory.h"

namespace switchyard::test {
namespace {

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Names of time series in a text, without what a histogram appends.
std::set<std::string> names_in(const std::string& text) {
  static const std::regex kName("switchyard_[a-z0-9_]+");
  static const std::regex kSuffix("_(bucket|sum|count)$");
  std::set<std::string> names;
  for (std::sregex_iterator match(text.begin(), text.end(), kName), end; match != end; ++match) {
    names.insert(std::regex_replace(match->str(), kSuffix, ""));
  }
  return names;
}

class PrometheusExporterTest : public ::testing::Test {
 protected:
  void record(int32_t layer, std::array<int64_t, 2> counts) {
    stats_.record({.layer = layer,
                   .num_tokens = counts[0] + counts[1],
                   .tokens_per_expert = {counts.data(), 2}});
  }
  /// The body of a scrape.
  static std::string scrape(const PrometheusExporter& exporter) {
    const std::string answer = http_get(exporter.port(), "/metrics");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
    const size_t body = answer.find("\r\n\r\n");
    return body == std::string::npos ? "" : answer.substr(body + 4);
  }
  /// "2.5" for the line `series 2.5`.
  static std::string value_of(const std::string& text, const std::string& series) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with(series + " ")) return line.substr(series.size() + 1);
    }
    return "none";
  }

  std::atomic<int64_t> now_{0};
  RoutingStats stats_{{.num_layers = 3, .num_experts = 2, .clock = [this] { return now_.load(); }}};
};

TEST_F(PrometheusExporterTest, ServesWhatWasRecorded) {
  record(0, {30, 10});
  const std::vector<int64_t> counts = {8, 8};
  stats_.record({.layer = 2,
                 .num_tokens = 10,
                 .tokens_per_expert = {counts.data(), 2},
                 .dropped_assignments = 4,
                 .fully_dropped_tokens = 1,
                 .balance_loss = 1.25,
                 .z_loss = 5.5,
                 .expert_capacity = 10,
                 .latency_ns = 2'000'000});
  stats_.record_residency(0, 3, 1);
  stats_.record_sacrificed_mass(0, 0.25);
  stats_.record_sacrificed_mass(0, 0.5);
  stats_.record_plan(3000);
  stats_.record_exchange(4096, 1'000'000'000);
  stats_.record_rebalance(7);
  const PrometheusExporter exporter("127.0.0.1:0", stats_);
  const std::string text = scrape(exporter);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"switchyard_tokens_total{layer=\"0\"}", "40"},
      {"switchyard_tokens_total{layer=\"2\"}", "10"},
      {"switchyard_routings_total{layer=\"1\"}", "0"},
      {"switchyard_assignments_total{layer=\"2\"}", "16"},
      {"switchyard_dropped_assignments_total{layer=\"2\"}", "4"},
      {"switchyard_dropped_tokens_total{layer=\"2\"}", "1"},
      {"switchyard_capacity_exceeded_total{layer=\"2\"}", "1"},
      {"switchyard_capacity_use_ratio{layer=\"2\"}", "0.8"},
      {"switchyard_balance_loss_mean{layer=\"2\"}", "1.25"},
      {"switchyard_z_loss_mean{layer=\"2\"}", "5.5"},
      {"switchyard_balancedness_worst_layer", "0"},
      {"switchyard_layer_balancedness_ratio{layer=\"2\"}", "1"},
      {"switchyard_balancedness_p50_ratio", "0.8333333333333333"},
      {"switchyard_residency_hits_total{layer=\"0\"}", "3"},
      {"switchyard_residency_misses_total{layer=\"0\"}", "1"},
      {"switchyard_residency_hit_ratio{layer=\"0\"}", "0.75"},
      {"switchyard_sacrificed_mass_ratio_sum", "0.75"},
      {"switchyard_sacrificed_mass_ratio_count", "2"},
      {"switchyard_sacrificed_mass_ratio_bucket{le=\"0.2\"}", "0"},
      {"switchyard_sacrificed_mass_ratio_bucket{le=\"0.5\"}", "2"},
      {"switchyard_sacrificed_mass_ratio_bucket{le=\"+Inf\"}", "2"},
      {"switchyard_routing_duration_seconds_count", "1"},
      {"switchyard_plan_duration_seconds_sum", "3e-06"},
      {"switchyard_plan_duration_seconds_bucket{le=\"4.096e-06\"}", "1"},
      {"switchyard_exchange_duration_seconds_count", "1"},
      {"switchyard_dispatch_bytes_total", "4096"},
      {"switchyard_rebalances_total", "1"},
      {"switchyard_moved_slots_total", "7"},
  };
  for (const auto& [series, value] : expected) {
    if (value.find('.') == std::string::npos) {
      EXPECT_EQ(value_of(text, series), value) << series;
    } else {
      EXPECT_NEAR(std::stod(value_of(text, series)), std::stod(value), 1e-9) << series;
    }
  }
}

TEST_F(PrometheusExporterTest, ExpertsAreServedWhereAskedFor) {
  record(1, {30, 10});
  const PrometheusExporter few("127.0.0.1:0", stats_);
  EXPECT_EQ(scrape(few).find("switchyard_expert_assignments_total"), std::string::npos);
  const PrometheusExporter all("127.0.0.1:0", stats_, {.per_expert = true});
  EXPECT_EQ(value_of(scrape(all), "switchyard_expert_assignments_total{layer=\"1\",expert=\"1\"}"),
            "10");
}

TEST_F(PrometheusExporterTest, BalancednessIsOfLate) {
  const PrometheusExporter exporter("127.0.0.1:0", stats_, {.balancedness_window_ms = 1000});
  const auto balancedness = [&] {
    return std::stod(
        value_of(scrape(exporter), "switchyard_layer_balancedness_ratio{layer=\"0\"}"));
  };
  const auto after = [&](int64_t ms) { now_ += ms * 1'000'000; };
  EXPECT_EQ(value_of(scrape(exporter), "switchyard_balancedness_worst_layer"), "-1");
  record(0, {100, 0});
  EXPECT_EQ(balancedness(), 0.5);
  after(1000);
  EXPECT_EQ(balancedness(), 0.5);
  record(0, {50, 50});
  EXPECT_EQ(balancedness(), 100.0 / 150.0);
  after(1000);
  EXPECT_EQ(balancedness(), 100.0 / 150.0);
  EXPECT_EQ(balancedness(), 1.0);  // the hundred of before are forgotten
  stats_.reset();
  record(0, {10, 0});
  EXPECT_EQ(balancedness(), 0.5);
}

TEST_F(PrometheusExporterTest, PromtoolFindsNothingToSay) {
  if (std::system("promtool --version > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool is not here; it comes with Prometheus";
  }
  record(0, {3, 1});
  stats_.record_sacrificed_mass(0, 0.25);
  const PrometheusExporter exporter("127.0.0.1:0", stats_, {.per_expert = true});
  const switchyard::testing::TemporaryDirectory directory;
  const std::string metrics = (directory / "metrics.txt").string();
  const std::string said = (directory / "said.txt").string();
  std::ofstream(metrics) << scrape(exporter);
  const int status =
      std::system(("promtool check metrics < " + metrics + " > " + said + " 2>&1").c_str());
  EXPECT_EQ(status, 0);
  EXPECT_EQ(read(said), "");
}

TEST_F(PrometheusExporterTest, TheDashboardAndTheTableNameWhatIsServed) {
  const PrometheusExporter exporter("127.0.0.1:0", stats_, {.per_expert = true});
  const std::set<std::string> served = names_in(scrape(exporter));
  const nlohmann::json dashboard =
      nlohmann::json::parse(read(SWITCHYARD_SOURCE_DIR "/docs/grafana_dashboard.json"));
  std::string queries;
  for (const nlohmann::json& panel : dashboard.at("panels")) {
    for (const nlohmann::json& target : panel.at("targets")) {
      queries += target.at("expr").get<std::string>() + "\n";
    }
  }
  for (const nlohmann::json& variable : dashboard.at("templating").at("list")) {
    queries += variable.at("query").get<std::string>() + "\n";
  }
  EXPECT_EQ(names_in(queries), served);
  std::set<std::string> documented = names_in(read(SWITCHYARD_SOURCE_DIR "/docs/metrics.md"));
  EXPECT_EQ(documented, served);
}

TEST_F(PrometheusExporterTest, ListensOnThisMachineUnlessToldOtherwise) {
  for (const char* address : {"0", ":0", "localhost:0", "127.0.0.1:0"}) {
    const PrometheusExporter exporter(address, stats_);
    EXPECT_EQ(exporter.address(), "127.0.0.1:" + std::to_string(exporter.port()));
    EXPECT_NE(exporter.port(), 0);
    EXPECT_NE(scrape(exporter), "");
  }
  const PrometheusExporter everywhere("0.0.0.0:0", stats_);
  EXPECT_NE(scrape(everywhere), "");
}

TEST_F(PrometheusExporterTest, EndsWithItselfAndAtOnce) {
  int port = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 10; ++i) {
    const PrometheusExporter exporter("127.0.0.1:0", stats_);
    port = exporter.port();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  EXPECT_EQ(http_get(port, "/metrics"), "");
  const PrometheusExporter again("127.0.0.1:" + std::to_string(port), stats_);
  EXPECT_NE(scrape(again), "");
}

TEST_F(PrometheusExporterTest, APortInUseIsOneClearError) {
  const PrometheusExporter first("127.0.0.1:0", stats_);
  ::testing::internal::CaptureStderr();
  const std::string text =
      refusal<Unavailable>([&] { PrometheusExporter(first.address(), stats_); });
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(text, "cannot listen on " + first.address() + ": Address already in use");
  EXPECT_NE(scrape(first), "");
}

TEST_F(PrometheusExporterTest, AddressesOfThisMachineOnly) {
  EXPECT_EQ(refusal<Unavailable>([&] { PrometheusExporter("192.0.2.1:9464", stats_); }),
            "cannot listen on 192.0.2.1:9464: Cannot assign requested address");
}

TEST_F(PrometheusExporterTest, RefusesAddressesOfAnotherForm) {
  const auto refused = [&](const std::string& address) {
    return refusal([&] { PrometheusExporter(address, stats_); });
  };
  const std::string no_host = " is no IPv4 address and not localhost";
  EXPECT_EQ(refused(""), "address is : its port is \"\", must be in [0, 65535]");
  EXPECT_EQ(refused("9464x"), "address is 9464x: its port is \"9464x\", must be in [0, 65535]");
  EXPECT_EQ(refused("127.0.0.1"),
            "address is 127.0.0.1: its port is \"127.0.0.1\", must be in [0, 65535]");
  EXPECT_EQ(refused("127.0.0.1:"),
            "address is 127.0.0.1:: its port is \"\", must be in [0, 65535]");
  EXPECT_EQ(refused("127.0.0.1:-1"),
            "address is 127.0.0.1:-1: its port is \"-1\", must be in [0, 65535]");
  EXPECT_EQ(refused("127.0.0.1:65536"),
            "address is 127.0.0.1:65536: its port is \"65536\", must be in [0, 65535]");
  EXPECT_EQ(refused("example.org:80"), "address is example.org:80: example.org" + no_host);
  EXPECT_EQ(refused("127.0.0:80"), "address is 127.0.0:80: 127.0.0" + no_host);
  EXPECT_EQ(refused("::1:80"), "address is ::1:80: ::1" + no_host);
  EXPECT_EQ(refusal([&] { PrometheusExporter("0", stats_, {.balancedness_window_ms = 0}); }),
            "balancedness_window_ms is 0, must be in [1, 1099511627776]");
}

TEST_F(PrometheusExporterTest, ServesWhileThreadsRecord) {
  const PrometheusExporter exporter("127.0.0.1:0", stats_);
  std::atomic<bool> is_done{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      while (!is_done.load()) record(0, {3, 1});
    });
  }
  for (int i = 0; i < 10; ++i) {
    const std::string text = scrape(exporter);
    const double tokens = std::stod(value_of(text, "switchyard_tokens_total{layer=\"0\"}"));
    const double routings = std::stod(value_of(text, "switchyard_routings_total{layer=\"0\"}"));
    EXPECT_EQ(tokens, 4.0 * routings);
  }
  is_done = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace switchyard::test
