// Dispatch and combine of a Mixture-of-Experts layer between ranks, beside the transport's own
// all-to-all of the same counts and a copy of the same bytes. Checks what it times.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/moe_choices.h"
#include "bench/perf_options.h"
#include "bench/perf_ranks.h"
#include "switchyard/buffer.h"
#include "switchyard/build_info.h"
#include "switchyard/errors.h"
#include "switchyard/exchange_cost.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/output_file.h"
#include "switchyard/traffic.h"
#ifdef SWITCHYARD_MPI
#include "bench/raw_alltoallv.h"
#endif

namespace switchyard::bench {
namespace {

struct Options : PerfOptions {
  ChoiceOptions choices;
  std::vector<int64_t> tokens{128, 1024, 4096};
  int64_t hidden = 4096;
  std::string element = "bf16";
  int32_t block_rows = 1;
  bool deduplicate = false;
  bool private_rows = false;
};

/// What is done in turn, so that a machine's moods hit all alike.
enum Work : std::size_t { kPlan, kDispatch, kCombine, kRaw, kCopy, kNumWorks };

/// Of one size, the same on every rank.
struct MoeResult {
  int64_t tokens = 0;  ///< of a rank
  int64_t rows = 0;    ///< of all ranks: one an assignment
  int64_t bytes = 0;   ///< of those rows
  std::array<double, kNumWorks> seconds{};
  TrafficSummary traffic;
  double predicted_dispatch = 0.0;
  double predicted_combine = 0.0;
  int64_t trips = -1;  ///< rows that travel in a dispatch, where deduplicated
  int64_t wrong = -1;

  [[nodiscard]] double gbps(Work work) const {
    return static_cast<double>(bytes) / 1e9 / seconds[work];
  }
  /// Of a dispatch or combine, how its bandwidth compares.
  [[nodiscard]] double share(Work work, Work other) const { return seconds[other] / seconds[work]; }
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

DataType element_type(const std::string& name) {
  if (name == "bf16") return DataType::kBFloat16;
  if (name == "f16") return DataType::kFloat16;
  if (name == "f32") return DataType::kFloat32;
  throw InvalidArgument("--dtype is '" + name + "', must be bf16, f16 or f32");
}

class MoeRank {
 public:
  MoeRank(Communicator& communicator, const Options& options, const MoeChoices& choices)
      : communicator_(communicator),
        options_(options),
        choices_(choices),
        dtype_(element_type(options.element)),
        row_bytes_(options.hidden * size_of(dtype_)),
        exchange_(
            {.placement = ExpertPlacement::contiguous(choices.num_experts(), communicator.size()),
             .top_k = choices.top_k(),
             .max_tokens = *std::max_element(options.tokens.begin(), options.tokens.end()),
             .block_rows = options.block_rows,
             .deduplicate = options.deduplicate},
            communicator, {.num_threads = 1}),
        plan_(exchange_.make_plan()),
        plan_workspace_(exchange_.plan_workspace_bytes()) {}

  MoeResult measure(int64_t num_tokens) {
    prepare(num_tokens);
    std::array<std::vector<double>, kNumWorks> times;
    for (int64_t i = -options_.warmup; i < options_.iterations; ++i) {
      for (std::size_t work = 0; work < kNumWorks; ++work) {
        const double taken = time(static_cast<Work>(work));
        if (i >= 0) times[work].push_back(taken);
      }
    }
    MoeResult result;
    result.tokens = num_tokens;
    result.rows = total_rows();
    result.bytes = result.rows * row_bytes_;
    for (std::size_t work = 0; work < kNumWorks; ++work) {
      result.seconds[work] = median(slowest(times[work]));
    }
    const TrafficMatrix traffic = traffic_matrix();
    result.traffic = summarize_traffic(traffic);
    const std::optional<LinkCost> fitted = link(result.bytes / communicator_.size());
    if (fitted) {
      const ExchangeCostModel model{.ranks_per_node = communicator_.size(),
                                    .node = *fitted,
                                    .network = {},
                                    .shares_node_bandwidth = true};
      result.predicted_dispatch = predict_seconds(model, traffic, row_bytes_);
      result.predicted_combine = predict_seconds(model, traffic.transposed(), row_bytes_);
    }
    if (options_.deduplicate) {
      const AllToAllCounts counts = plan_.dispatch_counts();
      result.trips = sum(static_cast<double>(counts.send_offsets[communicator_.size()]));
    }
    if (options_.checks > 0) result.wrong = sum(static_cast<double>(count_wrong()));
    return result;
  }

 private:
  void prepare(int64_t num_tokens) {
    num_tokens_ = num_tokens;
    ids_ = choices_.tokens(communicator_.rank() * num_tokens, num_tokens);
    weights_.assign(ids_.size(), 1.0f / static_cast<float>(choices_.top_k()));
    tokens_ = Buffer<std::byte>(num_tokens * row_bytes_);
    combined_ = Buffer<std::byte>(num_tokens * row_bytes_);
    const TensorView rows{tokens_.data(), dtype_, num_tokens, options_.hidden, options_.hidden};
    for (int64_t token = 0; token < num_tokens; ++token) {
      for (int64_t i = 0; i < options_.hidden; ++i) {
        set_element(rows, token, i,
                    static_cast<float>((token * 31 + i * 7 + communicator_.rank()) % 251 - 125));
      }
    }
    make_plan();
    const int64_t num_rows = plan_.num_expert_rows();
    expert_rows_ = {};
    if (!options_.private_rows) {
      expert_rows_ =
          communicator_.allocate_shared("rows", std::max<int64_t>(1, num_rows * row_bytes_));
    }
    if (expert_rows_.empty()) {
      private_rows_ = Buffer<std::byte>(num_rows * row_bytes_);
      expert_rows_ = private_rows_.bytes();
    }
    workspace_ = Buffer<std::byte>(
        std::max(exchange_.dispatch_workspace_bytes(plan_, row_bytes_),
                 exchange_.combine_workspace_bytes(plan_, options_.hidden, dtype_)));
    const AllToAllCounts back = plan_.combine_counts();
    const int64_t received = back.send_offsets[communicator_.size()];
    const int64_t sent = back.recv_offsets[communicator_.size()];
    raw_from_ = Buffer<std::byte>(sent * row_bytes_);
    raw_to_ = Buffer<std::byte>(std::max(sent, received) * row_bytes_);
    // Touched, so that no measurement finds fresh pages.
    std::fill(raw_from_.begin(), raw_from_.end(), std::byte{1});
    std::fill(raw_to_.begin(), raw_to_.end(), std::byte{2});
    std::fill(expert_rows_.begin(), expert_rows_.end(), std::byte{3});
#ifdef SWITCHYARD_MPI
    if (std::string(communicator_.transport()) == "mpi") {
      raw_call_ = raw_alltoallv(raw_from_.data(), raw_to_.data(), back.inverse(), row_bytes_);
    }
#endif
  }

  void make_plan() {
    exchange_.plan({ids_.data(), num_tokens_, choices_.top_k()}, plan_, plan_workspace_.bytes());
  }

  void dispatch() {
    exchange_.start_dispatch(plan_,
                             {std::as_const(tokens_).matrix(num_tokens_, row_bytes_),
                              {expert_rows_.data(), plan_.num_expert_rows(), row_bytes_}},
                             {}, workspace_.bytes());
    exchange_.finish_dispatch();
  }

  void combine() {
    const TensorView answers{expert_rows_.data(), dtype_, plan_.num_expert_rows(), options_.hidden,
                             options_.hidden};
    const TensorView tokens{combined_.data(), dtype_, num_tokens_, options_.hidden,
                            options_.hidden};
    exchange_.start_combine(
        plan_,
        {answers, MatrixView<const float>(weights_.data(), num_tokens_, choices_.top_k()), tokens},
        workspace_.bytes());
    exchange_.finish_combine();
  }

  /// The transport's own: contiguous rows, as many from and to every rank as a dispatch has.
  void raw() {
    if (raw_call_) return raw_call_();
    const AllToAllCounts counts = plan_.combine_counts().inverse();
    const int64_t sent = counts.send_offsets[communicator_.size()];
    const int64_t received = counts.recv_offsets[communicator_.size()];
    communicator_.start_all_to_all(
        "raw", {std::as_const(raw_from_).matrix(sent, row_bytes_), {}, counts.send_offsets},
        {raw_to_.matrix(received, row_bytes_), counts.recv_offsets, {}, {}});
    communicator_.finish_all_to_all();
  }

  void copy() {
    std::memcpy(raw_to_.data(), raw_from_.data(), static_cast<std::size_t>(raw_from_.size()));
  }

  /// Seconds from a common start to this rank's end.
  double time(Work work) {
    communicator_.barrier("start");
    const auto start = std::chrono::steady_clock::now();
    switch (work) {
      case kPlan:
        make_plan();
        break;
      case kDispatch:
        dispatch();
        break;
      case kCombine:
        combine();
        break;
      case kRaw:
        raw();
        break;
      default:
        copy();
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  /// Of each iteration, the time of the rank that took longest.
  std::vector<double> slowest(const std::vector<double>& mine) {
    std::vector<double> all(mine.size() * static_cast<std::size_t>(communicator_.size()));
    communicator_.all_gather("times", std::as_bytes(std::span(mine)),
                             std::as_writable_bytes(std::span(all)));
    std::vector<double> most(mine.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      most[i % mine.size()] = std::max(most[i % mine.size()], all[i]);
    }
    return most;
  }

  int64_t sum(double mine) {
    double total = 0.0;
    for (const double value : gather_values(communicator_, mine)) total += value;
    return static_cast<int64_t>(total);
  }

  int64_t total_rows() {
    return sum(static_cast<double>(plan_.combine_counts().send_offsets[communicator_.size()]));
  }

  TrafficMatrix traffic_matrix() const {
    TrafficMatrix traffic(communicator_.size());
    const MatrixView<const int64_t> counts = plan_.slot_counts();
    const ExpertPlacement& placement = exchange_.config().placement;
    for (int32_t source = 0; source < communicator_.size(); ++source) {
      for (int32_t slot = 0; slot < placement.num_slots(); ++slot) {
        traffic.at(source, placement.rank_of_slot(slot)) += counts.row(source)[slot];
      }
    }
    return traffic;
  }

  /// Fitted to all-to-alls of equal counts over this transport, some smaller and some larger than
  /// what a rank sends of this batch: caches make links of other sizes other links.
  /// @return none for a rank alone, and where the machine was too unsteady to tell.
  std::optional<LinkCost> link(int64_t bytes_per_rank) {
    const int size = communicator_.size();
    if (size == 1) return std::nullopt;
    std::vector<ExchangeTiming> timings;
    std::vector<int64_t> offsets;
    for (int64_t rank = 0; rank <= size; ++rank) offsets.push_back(rank);
    const VectorView<const int64_t> view(offsets.data(), size + 1);
    const int64_t least = std::max<int64_t>(1 << 16, bytes_per_rank / 8);
    for (int64_t bytes = least; bytes <= 16 * least; bytes *= 2) {
      const Buffer<std::byte> from(bytes);
      Buffer<std::byte> to(bytes);
      const int64_t block = bytes / size;
      std::vector<double> times;
      for (int i = 0; i < 7; ++i) {
        communicator_.barrier("fit");
        const auto start = std::chrono::steady_clock::now();
        communicator_.start_all_to_all("fit", {from.matrix(size, block), {}, view},
                                       {to.matrix(size, block), view, {}, {}});
        communicator_.finish_all_to_all();
        times.push_back(
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      }
      timings.push_back({size, block * size, median(slowest(times))});
    }
    try {
      return fit_link(timings, true);
    } catch (const InvalidArgument&) {
      return std::nullopt;
    }
  }

  /// Experts answer what they get, so that a token's answer is known without any exchange.
  int64_t count_wrong() {
    std::fill(expert_rows_.begin(), expert_rows_.end(), std::byte{0});
    std::fill(combined_.begin(), combined_.end(), std::byte{0});
    dispatch();
    combine();
    const ConstTensorView tokens{tokens_.data(), dtype_, num_tokens_, options_.hidden,
                                 options_.hidden};
    const ConstTensorView combined{combined_.data(), dtype_, num_tokens_, options_.hidden,
                                   options_.hidden};
    std::vector<float> expected_row(1);
    const TensorView rounded{expected_row.data(), dtype_, 1, 1, 1};
    int64_t wrong = 0;
    for (int64_t token = 0; token < num_tokens_; ++token) {
      for (int64_t i = 0; i < options_.hidden; ++i) {
        float expected = 0.0f;
        for (int32_t slot = 0; slot < choices_.top_k(); ++slot) {
          const auto at = static_cast<std::size_t>(token * choices_.top_k() + slot);
          if (ids_[at] < 0) continue;
          expected = std::fma(weights_[at], element_at(tokens, token, i), expected);
        }
        set_element(rounded, 0, 0, expected);
        wrong += element_at(combined, token, i) != element_at(rounded, 0, 0);
      }
    }
    return wrong;
  }

  Communicator& communicator_;
  const Options& options_;
  const MoeChoices& choices_;
  DataType dtype_;
  int64_t row_bytes_;
  ExpertExchange exchange_;
  AllToAllPlan plan_;
  int64_t num_tokens_ = 0;
  std::vector<int32_t> ids_;
  std::vector<float> weights_;
  Buffer<std::byte> tokens_;
  Buffer<std::byte> combined_;
  Buffer<std::byte> private_rows_;
  std::span<std::byte> expert_rows_;
  Buffer<std::byte> plan_workspace_;
  Buffer<std::byte> workspace_;
  Buffer<std::byte> raw_from_;
  Buffer<std::byte> raw_to_;
  std::function<void()> raw_call_;
};

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
  MoeTable(const Options& options, const MoeChoices& choices, const Communicator& communicator) {
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
        "fit: predicted, by links fitted to all-to-alls of equal counts, over measured time\n#\n",
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
bool measure(Communicator& communicator, const Options& options, const MoeChoices& choices) {
  std::optional<MoeTable> table;
  if (communicator.rank() == 0) table.emplace(options, choices, communicator);
  MoeRank rank(communicator, options, choices);
  for (const int64_t tokens : options.tokens) {
    const MoeResult result = rank.measure(tokens);
    if (table) table->add(result);
  }
  return !table || table->finish();
}

void check_options(const Options& options) {
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

void add_options(CLI::App& app, Options& options) {
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
  app.add_flag("--deduplicate", options.deduplicate, "a token travels once to a rank");
}

int run(int argc, char** argv) {
  constexpr int kFailure = 1;
  constexpr int kUsage = 2;
  PerfProcess process;
  Options options;
  options.warmup = 3;
  CLI::App app{"Times dispatch and combine between ranks; checks what it times."};
  app.name("moe_perf");
  add_options(app, options);
  const auto fail = [&](int exit_code, const std::string& what) {
    if (process.is_first() || exit_code == kFailure) std::cerr << "moe_perf: " << what << '\n';
    return exit_code;
  };
  try {
    app.parse(argc, argv);
    check_options(options);
    const MoeChoices choices(options.choices);
    bool is_right = true;
    process.run(options, [&](Communicator& communicator) {
      const bool held = measure(communicator, options, choices);
      if (communicator.rank() == 0) is_right = held;
    });
    return is_right ? 0 : kFailure;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return fail(kUsage, error.what());
    return process.is_first() ? app.exit(error) : 0;  // --help
  } catch (const CommunicationError& error) {
    return fail(kFailure, error.what());
  } catch (const std::bad_alloc&) {
    return fail(kFailure, "out of memory");
  } catch (const CudaError& error) {
    return fail(kFailure, error.what());
  } catch (const Error& error) {
    return fail(kUsage, error.what());
  } catch (const std::exception& error) {
    return fail(kFailure, error.what());
  }
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) { return switchyard::bench::run(argc, argv); }
