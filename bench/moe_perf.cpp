// Dispatch and combine of a Mixture-of-Experts layer between ranks, beside the transport's own
// all-to-all of the same counts and a copy of the same bytes. Checks what it times.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "bench/moe_choices.h"
#include "bench/moe_rank.h"
#include "bench/perf_options.h"
#include "bench/perf_program.h"
#include "bench/perf_ranks.h"
#include "switchyard/build_info.h"
#include "switchyard/errors.h"
#include "switchyard/output_file.h"
#include "tools/measured_links.h"

namespace switchyard::bench {
namespace {

nlohmann::ordered_json to_json(const MoeResult& result) {
  const auto us = [&](Work work) { return result.seconds[work] * 1e6; };
  return {{"tokens", result.tokens},
          {"rows", result.rows},
          {"bytes", result.bytes},
          {"deduplicated_rows", result.trips < 0 ? nlohmann::json() : nlohmann::json(result.trips)},
          {"rows_moved", result.traffic.rows_moved},
          {"send_imbalance", result.traffic.send_imbalance},
          {"recv_imbalance", result.traffic.recv_imbalance},
          {"compute_imbalance", result.traffic.compute_imbalance},
          {"plan_us", us(kPlan)},
          {"dispatch_us", us(kDispatch)},
          {"combine_us", us(kCombine)},
          {"raw_us", us(kRaw)},
          {"copy_us", us(kCopy)},
          {"dispatch_gbps", result.gbps(kDispatch)},
          {"combine_gbps", result.gbps(kCombine)},
          {"predicted_dispatch_us", result.predicted_dispatch * 1e6},
          {"predicted_combine_us", result.predicted_combine * 1e6},
          {"wrong", result.wrong < 0 ? nlohmann::json() : nlohmann::json(result.wrong)}};
}

/// Printed by the first rank, as results come.
class MoeTable {
 public:
  MoeTable(const MoeOptions& options, const MoeChoices& choices, const Communicator& communicator) {
    if (!options.json_path.empty()) file_.emplace(options.json_path);
    json_ = {{"program", "moe_perf"},
             {"version", build_info().version},
             {"transport", communicator.transport()},
             {"num_ranks", communicator.size()},
             {"choices", choices.description()},
             {"num_experts", choices.num_experts()},
             {"top_k", choices.top_k()},
             {"hidden_size", options.hidden},
             {"dtype", options.element},
             {"deduplicate", options.deduplicate},
             {"private_rows", options.private_rows},
             {"results", nlohmann::ordered_json::array()}};
    std::printf("# moe_perf: switchyard %s, %d ranks over %s\n", build_info().version.c_str(),
                communicator.size(), communicator.transport());
    std::printf("# %s: top %d of %d experts; %ld %s a token%s; warmup iters: %ld iters: %ld\n",
                choices.description().c_str(), choices.top_k(), choices.num_experts(),
                static_cast<long>(options.hidden), options.element.c_str(),
                (std::string(options.deduplicate ? ", deduplicated" : "") +
                 (options.private_rows ? ", rows in private memory" : ""))
                    .c_str(),
                static_cast<long>(options.warmup), static_cast<long>(options.iterations));
    std::printf(
        "# GB/s: bytes of all expert rows over the time of the slowest rank; of raw: beside "
        "%s of the same counts;\n# of copy: beside a copy of the same bytes on every rank;\n# "
        "fit: predicted, by a link fitted to all-to-alls of as much and more, over measured "
        "time;\n# by the copy's bandwidth where processes use each other's memory\n#\n",
        std::string(communicator.transport()) == "mpi" ? "MPI_Alltoallv" : "contiguous rows");
    std::printf("#%9s %9s %11s %7s %8s |%9s %7s %7s %7s %5s |%9s %7s %7s %7s %5s | %6s\n", "tokens",
                "rows", "bytes", "compute", "plan", "dispatch", "", "of raw", "of copy", "fit",
                "combine", "", "of raw", "of copy", "fit", "#wrong");
    std::printf("#%9s %9s %11s %7s %8s |%9s %7s %7s %7s %5s |%9s %7s %7s %7s %5s | %6s\n", "a rank",
                "", "", "imbal.", "(us)", "(us)", "(GB/s)", "(%)", "(%)", "", "(us)", "(GB/s)",
                "(%)", "(%)", "", "");
  }

  void add(const MoeResult& result) {
    const auto part = [&](Work work, double predicted) {
      std::printf("|%9.1f %7.2f %7.0f %7.0f ", result.seconds[work] * 1e6, result.gbps(work),
                  100.0 * result.share(work, kRaw), 100.0 * result.share(work, kCopy));
      if (predicted > 0.0) {
        std::printf("%5.2f ", predicted / result.seconds[work]);
      } else {
        std::printf("%5s ", "N/A");
      }
    };
    std::printf(" %9ld %9ld %11ld %7.2f %8.1f ", static_cast<long>(result.tokens),
                static_cast<long>(result.rows), static_cast<long>(result.bytes),
                result.traffic.compute_imbalance, result.seconds[kPlan] * 1e6);
    part(kDispatch, result.predicted_dispatch);
    part(kCombine, result.predicted_combine);
    std::printf("| %6s\n", result.wrong < 0 ? "N/A" : std::to_string(result.wrong).c_str());
    std::fflush(stdout);
    num_wrong_ += std::max<int64_t>(0, result.wrong);
    json_["results"].push_back(to_json(result));
  }

  bool finish() {
    std::printf("# Out of bounds values : %ld %s\n", static_cast<long>(num_wrong_),
                num_wrong_ == 0 ? "OK" : "FAILED");
    if (file_) {
      file_->write(json_.dump(2) + "\n");
      file_->commit();
    }
    return num_wrong_ == 0;
  }

 private:
  nlohmann::ordered_json json_;
  std::optional<OutputFile> file_;
  int64_t num_wrong_ = 0;
};

/// @return false where this rank speaks for all and a check failed.
bool measure(Communicator& communicator, const MoeOptions& options, const MoeChoices& choices) {
  std::optional<MoeTable> table;
  if (communicator.rank() == 0) table.emplace(options, choices, communicator);
  MoeRank rank(communicator, options, choices);
  for (const int64_t tokens : options.tokens) {
    const MoeResult result = rank.measure(tokens);
    if (table) table->add(result);
  }
  return !table || table->finish();
}

void check_options(const MoeOptions& options) {
  check_perf_options(options);
  element_type(options.element);
  const auto check = [](const char* name, int64_t value, int64_t most) {
    if (value < 1 || value > most) {
      throw InvalidArgument(std::string(name) + " is " + std::to_string(value) +
                            ", must be in [1, " + std::to_string(most) + "]");
    }
  };
  check("--hidden", options.hidden, 1 << 20);
  for (const int64_t tokens : options.tokens) check("--tokens", tokens, 1 << 24);
}

void add_options(CLI::App& app, MoeOptions& options) {
  add_perf_options(app, options);
  for (const char* unused :
       {"--minbytes", "--maxbytes", "--stepbytes", "--stepfactor", "--agg_iters", "--run_cycles",
        "--datatype", "--blocking", "--report_cputime", "--average", "--min-bandwidth"}) {
    app.remove_option(app.get_option(unused));
  }
  app.add_option("--model", options.choices.model, "preset that says how many experts");
  app.add_option("--trace", options.choices.trace, "take the choices of this file instead");
  app.add_option("--layer", options.choices.layer, "of the trace; default: its first");
  app.add_option("--zipf", options.choices.zipf, "popularity falls as 1 / place^S; 0: even")
      ->excludes("--trace");
  app.add_option("--seed", options.choices.seed, "of the choices");
  app.add_option("--tokens", options.tokens, "of a rank; several, by commas, are measured in turn")
      ->delimiter(',');
  app.add_option("--hidden", options.hidden, "elements a token, default 4096");
  app.add_option("--dtype", options.element, "bf16 (default), f16 or f32");
  app.add_option("--block-rows", options.block_rows, "alignment of each expert's rows");
  app.add_flag("--private-rows", options.private_rows,
               "expert rows in each rank's own memory, not in memory that processes share");
  app.add_option_function<std::string>(
         "--staging",
         [&options](const std::string& text) { options.staging_bytes = parse_bytes(text); },
         "memory of a rank that such rows go through; 0: they are messages")
      ->type_name("BYTES");
  app.add_flag("--deduplicate", options.deduplicate, "a token travels once to a rank");
  app.add_option_function<std::string>(
         "--links",
         [&options](const std::string& path) { options.links = tools::read_measured_links(path); },
         "predict from what alltoall_perf -J wrote; default: from all-to-alls measured beside")
      ->type_name("FILE");
}

int run(int argc, char** argv) {
  PerfProcess process;
  MoeOptions options;
  options.warmup = 3;
  CLI::App app{"Times dispatch and combine between ranks; checks what it times."};
  app.name("moe_perf");
  add_options(app, options);
  return run_perf_program(app, argc, argv, process, [&] {
    check_options(options);
    const MoeChoices choices(options.choices);
    bool is_right = true;
    process.run(options, [&](Communicator& communicator) {
      const bool held = measure(communicator, options, choices);
      if (communicator.rank() == 0) is_right = held;
    });
    return is_right;
  });
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) { return switchyard::bench::run(argc, argv); }
