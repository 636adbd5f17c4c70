// Routing, sorting and moving rows on a GPU, in graph replay, held against an empty kernel and a
// copy. Checks what it times. Prints Markdown, or with --json one JSON object.
#include <cuda_runtime_api.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/gpu_batches.h"
#include "bench/gpu_floors.h"
#include "bench/gpu_rows.h"
#include "bench/gpu_timing.h"
#include "bench/peers/peer.h"
#include "switchyard/build_info.h"
#include "switchyard/errors.h"
#include "tests/simt/device_array.h"

namespace switchyard::bench {
namespace {

using test::DeviceArray;
using test::require_success;

struct Options {
  std::vector<std::string> models;  ///< presets, or E:k for renormalised softmax; all where empty
  std::vector<int64_t> tokens{1, 8, 64, 256, 1024, 4096, 16384, 65536};
  std::vector<std::string> dtypes{"F32", "BF16"};
  int64_t hidden_size = 7168;
  int64_t max_gib = 16;  ///< of rows
  int64_t copy_mib = 1024;
  ReplayOptions replay;
  bool json = false;
};

int64_t attribute(cudaDeviceAttr name) {
  int value = 0;
  require_success(cudaDeviceGetAttribute(&value, name, 0));
  return value;
}

/// What buffers in turn must pass.
int64_t cache_bytes() { return 2 * attribute(cudaDevAttrL2CacheSize); }

RoutingCase find_case(const std::string& name) {
  const size_t colon = name.find(':');
  if (colon != std::string::npos) {
    return softmax_case(std::stoi(name.substr(0, colon)), std::stoi(name.substr(colon + 1)));
  }
  for (const RoutingCase& preset : preset_cases()) {
    if (preset.name == name) return preset;
  }
  throw InvalidArgument("no preset " + name + "; `switchyard info` lists them");
}

std::vector<RoutingCase> chosen_cases(const Options& options) {
  if (options.models.empty()) return preset_cases();
  std::vector<RoutingCase> cases;
  for (const std::string& name : options.models) cases.push_back(find_case(name));
  return cases;
}

std::string shape_of(const RoutingCase& routing_case) {
  return std::to_string(routing_case.config.num_experts) + ":" +
         std::to_string(routing_case.config.top_k);
}

/// Graphs stay short where calls are long.
ReplayOptions replay_of(const Options& options, int64_t num_tokens) {
  ReplayOptions replay = options.replay;
  if (num_tokens > 1024) {
    replay.calls = std::min(replay.calls, 8);
    replay.replays = 1;
  }
  return replay;
}

struct Floors {
  double empty_us = 0;
  double copy_gbps = 0;  ///< read and written
};

Floors measure_floors(const Options& options) {
  const int64_t bytes = options.copy_mib << 20;
  const DeviceArray<std::byte> from(static_cast<size_t>(bytes));
  const DeviceArray<std::byte> to(static_cast<size_t>(bytes));
  require_success(cudaMemset(from.data(), 1, from.size()));
  const TimedCall empty{"empty", 0, [](int, StreamView stream) { enqueue_empty(stream); }};
  const TimedCall copy{"copy", 2 * bytes, [&](int, StreamView stream) {
                         enqueue_copy(from.data(), to.data(), bytes, stream);
                       }};
  ReplayOptions once = options.replay;
  once.calls = std::min(once.calls, 4);
  const double copy_us = time_interleaved({copy}, once).front();
  return {time_interleaved({empty}, options.replay).front(),
          static_cast<double>(copy.bytes) / copy_us * 1e-3};
}

/// Rows of the tables, printed as they come or kept for one JSON object.
class Results {
 public:
  Results(const Options& options, const Floors& floors) : json_(options.json), floors_(floors) {
    const BuildInfo info = build_info();
    out_["gpu"] = info.gpus.front().name;
    out_["empty_us"] = floors.empty_us;
    out_["copy_gbps"] = floors.copy_gbps;
    out_["results"] = nlohmann::json::array();
    if (json_) return;
    std::printf("%s\n\n- an empty kernel in graph replay: %.2f us\n- copy of %lld MiB: %.0f GB/s\n",
                out_["gpu"].get<std::string>().c_str(), floors.empty_us,
                static_cast<long long>(options.copy_mib), floors.copy_gbps);
  }

  void start_routing_table() const {
    if (json_) return;
    std::printf(
        "\n## Routing and sorting, us a call\n\n"
        "| model | E:k | logits | T | route | / empty | of copy | with counts | sort | route, sort "
        "| in one call | / empty | in several launches |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  }

  void start_row_table(int64_t hidden_size) const {
    if (json_) return;
    std::printf(
        "\n## Rows of %lld bfloat16, us a call and share of copying as many bytes\n\n"
        "| model | k | T | permute | of copy | unpermute | of copy "
        "|\n|---|---|---|---|---|---|---|\n",
        static_cast<long long>(hidden_size));
  }

  void add(const RoutingCase& routing_case, const std::string& dtype, int64_t num_tokens,
           const std::vector<TimedCall>& calls, const std::vector<double>& times) {
    for (size_t i = 0; i < calls.size(); ++i) {
      out_["results"].push_back({{"model", routing_case.name},
                                 {"num_experts", routing_case.config.num_experts},
                                 {"top_k", routing_case.config.top_k},
                                 {"dtype", dtype},
                                 {"num_tokens", num_tokens},
                                 {"operation", calls[i].name},
                                 {"bytes", calls[i].bytes},
                                 {"us", times[i]}});
    }
  }

  void print_routing(const RoutingCase& routing_case, const std::string& dtype, int64_t num_tokens,
                     const std::vector<TimedCall>& calls, const std::vector<double>& times) const {
    if (json_) return;
    std::printf(
        "| %s | %s | %s | %lld | %.2f | %.2f | %.0f %% | %.2f | %.2f | %.2f | %.2f | %.2f | %.2f "
        "|\n",
        routing_case.name.c_str(), shape_of(routing_case).c_str(), dtype.c_str(),
        static_cast<long long>(num_tokens), times[0], times[0] / floors_.empty_us,
        share(calls[0].bytes, times[0]), times[1], times[2], times[3], times[4],
        times[4] / floors_.empty_us, times[5]);
    std::fflush(stdout);
  }

  /// For the table of print_peers(). The peers' are the last of `calls`.
  void keep_peers(const RoutingCase& routing_case, const std::string& dtype, int64_t num_tokens,
                  const std::vector<PeerCall>& peers, const std::vector<TimedCall>& calls,
                  const std::vector<double>& times) {
    const size_t first = calls.size() - peers.size();
    for (size_t i = 0; i < peers.size(); ++i) {
      const auto ours = std::find_if(calls.begin(), calls.end(), [&](const TimedCall& call) {
        return call.name == peers[i].beside;
      });
      const double ours_us = times[static_cast<size_t>(ours - calls.begin())];
      const double us = times[first + i];
      char row[256];
      std::snprintf(row, sizeof(row), "| %s | %s | %s | %lld | %s | %.2f | %.2f | %.1f |\n",
                    routing_case.name.c_str(), shape_of(routing_case).c_str(), dtype.c_str(),
                    static_cast<long long>(num_tokens), peers[i].call.name.c_str(), us, ours_us,
                    us / ours_us);
      peer_rows_ += row;
    }
  }

  /// Nothing where there are no peers.
  void print_peers() const {
    if (json_ || peer_rows_.empty()) return;
    std::printf(
        "\n## Beside other projects' kernels, us a call\n\n"
        "| model | E:k | logits | T | peer | peer's | library's | times |\n"
        "|---|---|---|---|---|---|---|---|\n%s",
        peer_rows_.c_str());
  }

  void print_rows(const RoutingCase& routing_case, int64_t num_tokens,
                  const std::vector<TimedCall>& calls, const std::vector<double>& times) const {
    if (json_) return;
    // Beside the copy of the same run, which is as large and as cached.
    const double copied = static_cast<double>(calls[2].bytes) / times[2];
    std::printf("| %s | %d | %lld | %.2f | %.0f %% | %.2f | %.0f %% |\n", routing_case.name.c_str(),
                routing_case.config.top_k, static_cast<long long>(num_tokens), times[0],
                100 * static_cast<double>(calls[0].bytes) / times[0] / copied, times[1],
                100 * static_cast<double>(calls[1].bytes) / times[1] / copied);
    std::fflush(stdout);
  }

  void finish() const {
    if (json_) std::cout << out_.dump() << '\n';
  }

 private:
  [[nodiscard]] double share(int64_t bytes, double us) const {
    return 100 * static_cast<double>(bytes) / us * 1e-3 / floors_.copy_gbps;
  }

  bool json_;
  Floors floors_;
  nlohmann::json out_;
  std::string peer_rows_;
};

DataType dtype_of(const std::string& name) {
  if (name == "F32") return DataType::kFloat32;
  if (name == "BF16") return DataType::kBFloat16;
  throw InvalidArgument("--dtypes holds " + name + ", must be F32 or BF16");
}

void measure_routing(const Options& options, Results& results) {
  results.start_routing_table();
  for (const RoutingCase& routing_case : chosen_cases(options)) {
    for (const std::string& dtype : options.dtypes) {
      for (const int64_t num_tokens : options.tokens) {
        const ReplayOptions replay = replay_of(options, num_tokens);
        const GpuBatches batches(routing_case, num_tokens, dtype_of(dtype), cache_bytes(),
                                 replay.calls);
        batches.check();
        std::vector<TimedCall> calls = batches.calls();
        const auto peers = peers_of(batches);
        std::vector<PeerCall> peer_calls;
        for (const auto& peer : peers) {
          check_peer(*peer, batches);
          for (PeerCall& call : peer->calls()) peer_calls.push_back(std::move(call));
        }
        for (const PeerCall& peer : peer_calls) calls.push_back(peer.call);
        const std::vector<double> times = time_interleaved(calls, replay);
        results.add(routing_case, dtype, num_tokens, calls, times);
        results.print_routing(routing_case, dtype, num_tokens, calls, times);
        results.keep_peers(routing_case, dtype, num_tokens, peer_calls, calls, times);
      }
    }
  }
  results.print_peers();
}

void measure_rows(const Options& options, Results& results) {
  results.start_row_table(options.hidden_size);
  for (const RoutingCase& routing_case : chosen_cases(options)) {
    for (const int64_t num_tokens : options.tokens) {
      const int64_t bytes =
          GpuRows::bytes(num_tokens, routing_case.config.top_k, options.hidden_size);
      if (bytes > options.max_gib << 30) continue;
      const ReplayOptions replay = replay_of(options, num_tokens);
      const GpuBatches batches(routing_case, num_tokens, DataType::kBFloat16, 0, 1);
      batches.check();
      const GpuRows rows(batches, options.hidden_size, cache_bytes(), replay.calls);
      rows.check();
      const std::vector<TimedCall> calls = rows.calls();
      const std::vector<double> times = time_interleaved(calls, replay);
      results.add(routing_case, "BF16", num_tokens, calls, times);
      results.print_rows(routing_case, num_tokens, calls, times);
    }
  }
}

int run(int argc, char** argv) {
  Options options;
  bool rows = true;
  CLI::App app{"Times routing, sorting and moving rows on the current GPU."};
  app.add_option("--models", options.models, "presets, or E:k for renormalised softmax; else all")
      ->delimiter(',');
  app.add_option("--tokens", options.tokens, "batch sizes")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  app.add_option("--dtypes", options.dtypes, "of the logits: F32, BF16")->delimiter(',');
  app.add_option("--hidden", options.hidden_size, "elements of a row, a multiple of 8")
      ->check(CLI::PositiveNumber);
  app.add_option("--max-gib", options.max_gib, "leave out batches whose rows are more");
  app.add_option("--copy-mib", options.copy_mib, "bytes of the copy to compare with")
      ->check(CLI::PositiveNumber);
  app.add_option("--calls", options.replay.calls, "calls a graph")->check(CLI::PositiveNumber);
  app.add_option("--replays", options.replay.replays, "replays between two events")
      ->check(CLI::PositiveNumber);
  app.add_option("--repeats", options.replay.repeats, "interleaved repeats; the median counts")
      ->check(CLI::PositiveNumber);
  app.add_flag("--rows,!--no-rows", rows, "permute and unpermute too");
  app.add_flag("--json", options.json, "one JSON object on stdout");
  CLI11_PARSE(app, argc, argv);
  static_cast<void>(chosen_cases(options));
  for (const std::string& dtype : options.dtypes) static_cast<void>(dtype_of(dtype));
  if (build_info().gpus.empty()) throw Unavailable(build_info().gpu_note);

  Results results(options, measure_floors(options));
  measure_routing(options, results);
  if (rows) measure_rows(options, results);
  results.finish();
  return 0;
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  try {
    return switchyard::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "gpu_bench: " << error.what() << '\n';
    return 1;
  }
}
