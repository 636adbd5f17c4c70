// `switchyard run`: a trace through the whole pipeline, verified, timed and reported.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "switchyard/errors.h"
#include "switchyard/in_process_communicator.h"
#include "switchyard/output_file.h"
#include "tools/commands.h"
#include "tools/layer_pipeline.h"
#include "tools/mpi_job.h"
#include "tools/placement_file.h"
#include "tools/rank_pipeline.h"
#include "tools/report.h"
#include "tools/routed_layer.h"
#include "tools/routing_options.h"
#include "tools/run_results.h"

namespace switchyard::tools {
namespace {

constexpr int64_t kMaxRanks = 256;  // each a thread
constexpr int64_t kMaxHidden = 1 << 20;
constexpr int64_t kMaxBatch = 1 << 24;
constexpr int64_t kMaxRepeat = 1000;

struct RunOptions {
  std::string trace;
  std::optional<int64_t> ranks;
  int64_t hidden = 256;
  int64_t batch = 8192;
  int repeat = 3;
  std::string dtype = "bf16";
  uint64_t seed = 1;
  std::string placement;
  std::string report;
  bool json = false;
  RoutingOptions routing;
};

/// One line on a terminal, rewritten in place, for runs that take long enough to wonder.
class Progress {
 public:
  explicit Progress(std::size_t total)
      : total_(total), shows_(total > 0 && ::isatty(STDERR_FILENO) == 1) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (drawn_) std::cerr << "\r\033[K" << std::flush;
  }

  void done(std::size_t count) {
    const auto elapsed = std::chrono::steady_clock::now() - start_;
    if (!shows_ || elapsed < std::chrono::seconds(1)) return;
    drawn_ = true;
    std::cerr << "\r\033[K" << count << " of " << total_ << " layers" << std::flush;
  }

 private:
  std::size_t total_;
  bool shows_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw InvalidArgument(std::string(name) + " is " + std::to_string(value) + ", must be in [" +
                          std::to_string(low) + ", " + std::to_string(high) + "]");
  }
}

DataType parse_dtype(const std::string& name) {
  if (name == "bf16") return DataType::kBFloat16;
  if (name == "f32") return DataType::kFloat32;
  throw InvalidArgument("--dtype is '" + name + "', must be bf16 or f32");
}

void check_options(const RunOptions& options, int64_t num_ranks) {
  check_range("--ranks", num_ranks, 1, kMaxRanks);
  if (num_ranks == 1 && !options.placement.empty()) {
    throw InvalidArgument("--placement changes nothing: --ranks is 1");
  }
  check_range("--hidden", options.hidden, 1, kMaxHidden);
  check_range("--batch", options.batch, 1, kMaxBatch);
  check_range("--repeat", options.repeat, 1, kMaxRepeat);
}

Trace open_trace(const RunOptions& options, int64_t num_ranks) {
  check_options(options, num_ranks);
  return Trace::open(options.trace);
}

/// All that is known before anything is run.
class Run {
 public:
  Run(const RunOptions& options, int64_t num_ranks)
      : options_(options),
        trace_(open_trace(options, num_ranks)),
        layers_(options.routing.select_layers(trace_)),
        routing_(routing_of(options.routing, trace_, layers_)),
        config_{.num_tokens = trace_.num_tokens(),
                .batch_tokens = options.batch,
                .num_runs = options.repeat,
                .num_experts = trace_.num_experts(),
                .top_k = trace_.top_k(),
                .hidden_size = options.hidden,
                .dtype = parse_dtype(options.dtype),
                .seed = options.seed,
                .backend = options.routing.backend(),
                .threads = options.routing.threads()} {
    if (num_ranks > 1) prepare_ranks(static_cast<int>(num_ranks));
    results_ = {.trace = options.trace,
                .model = trace_.metadata("model").value_or(""),
                .num_ranks = static_cast<int>(num_ranks),
                .num_tokens = trace_.num_tokens(),
                .num_experts = trace_.num_experts(),
                .top_k = routing_ ? routing_->top_k : trace_.top_k(),
                .routing = routing_,
                .backend = {},
                .hidden_size = options.hidden,
                .dtype = config_.dtype,
                .seed = options.seed};
    // Now, so that a long run does not end with a report that cannot be written.
    if (!options.report.empty() && MpiJob::is_speaker()) report_.emplace(options.report);
  }

  /// The whole pipeline here.
  void run_alone() {
    LayerPipeline pipeline(config_, routing_);
    results_.backend = switchyard::name_of(pipeline.backend());
    Progress progress(layers_.size());
    for (const TraceLayer* layer : layers_) {
      results_.layers.push_back(pipeline.run(*layer, bias_of(*layer)));
      progress.done(results_.layers.size());
    }
    results_.verified_values = pipeline.verified_values();
  }

  /// One rank's part; rank 0 keeps what all did.
  void run_rank(Communicator& communicator) {
    RankPipeline pipeline(config_, routing_, communicator);
    std::vector<LayerResults> found;
    {
      Progress progress(communicator.rank() == 0 ? layers_.size() : 0);
      for (const TraceLayer* layer : layers_) {
        found.push_back(pipeline.run(*layer, bias_of(*layer), placement_of(*layer)));
        progress.done(found.size());
      }
    }
    if (communicator.rank() != 0) return;
    results_.transport = communicator.transport();
    results_.backend = switchyard::name_of(config_.backend);
    results_.layers = std::move(found);
    results_.verified_values = pipeline.verified_values();
  }

  void tell() {
    if (report_) {
      report_->write(report_page(results_));
      report_->commit();
    }
    if (options_.json) {
      using Json = nlohmann::ordered_json;
      std::cout << to_json(results_).dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
      return;
    }
    print(results_, std::cout);
    if (report_) std::cout << "report: " << options_.report << '\n';
  }

 private:
  void prepare_ranks(int num_ranks) {
    if (config_.backend == Backend::kCuda) {
      throw Unavailable("--backend is cuda, several ranks exchange host memory here");
    }
    if (config_.backend == Backend::kAuto) config_.backend = Backend::kCpu;
    if (config_.threads.num_threads == 0) config_.threads.num_threads = 1;
    const int32_t num_experts = routing_ ? routing_->num_expert_ids() : trace_.num_experts();
    blocks_.emplace(ExpertPlacement::contiguous(num_experts, num_ranks));
    if (options_.placement.empty()) return;
    placements_ = read_placement(options_.placement);
    placements_->check(num_ranks, num_experts, trace_);
  }

  [[nodiscard]] VectorView<const float> bias_of(const TraceLayer& layer) const {
    if (!routing_) return {};
    return options_.routing.selection_bias(trace_, layer);
  }

  [[nodiscard]] const ExpertPlacement& placement_of(const TraceLayer& layer) const {
    return placements_ ? placements_->of_layer(trace_, layer) : *blocks_;
  }

  const RunOptions& options_;
  Trace trace_;
  std::vector<const TraceLayer*> layers_;
  std::optional<RouterConfig> routing_;
  PipelineConfig config_;
  std::optional<ExpertPlacement> blocks_;
  std::optional<PlacementFile> placements_;
  RunResults results_;
  std::optional<OutputFile> report_;
};

/// Every process of the job is a rank.
void run_in_job(const RunOptions& options) {
  MpiJob job;
  const int size = job.communicator().size();
  std::optional<Run> run;
  std::string refusal;
  try {
    if (options.ranks && *options.ranks != size) {
      throw InvalidArgument("--ranks is " + std::to_string(*options.ranks) + ", the job has " +
                            std::to_string(size) + " processes");
    }
    run.emplace(options, size);
  } catch (const Error& error) {
    refusal = error.what();
  }
  job.agree(refusal);
  if (size == 1) {
    run->run_alone();
  } else {
    run->run_rank(job.communicator());
  }
  if (MpiJob::is_speaker()) run->tell();
}

void run(const RunOptions& options) {
  if (MpiJob::is_here()) return run_in_job(options);
  const int64_t num_ranks = options.ranks.value_or(1);
  Run run(options, num_ranks);
  if (num_ranks == 1) {
    run.run_alone();
  } else {
    run_ranks_as_threads(static_cast<int>(num_ranks),
                         [&](Communicator& communicator) { run.run_rank(communicator); });
  }
  run.tell();
}

}  // namespace

void add_run_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "run", "Run a trace through the whole pipeline with stand-in experts, and verify it");
  const auto options = std::make_shared<RunOptions>();
  command->add_option("trace", options->trace, "Trace with router_logits or expert_ids")
      ->required()
      ->type_name("TRACE");
  command
      ->add_option("--ranks", options->ranks,
                   "Ranks, each a thread, default 1; under mpirun its processes")
      ->type_name("R");
  command
      ->add_option("--placement", options->placement,
                   "Where experts live on several ranks; without it in contiguous blocks")
      ->type_name("P.json");
  command->add_option("--hidden", options->hidden, "Elements a token, default 256")->type_name("H");
  command->add_option("--dtype", options->dtype, "Their type: bf16 (default) or f32")
      ->type_name("TYPE");
  command->add_option("--seed", options->seed, "Seed of the tokens, default 1")->type_name("S");
  command->add_option("--batch", options->batch, "Tokens at a time, default 8192")->type_name("N");
  command
      ->add_option("--repeat", options->repeat,
                   "Run every stage so often and tell the shortest time, default 3")
      ->type_name("N");
  command->add_option("--report", options->report, "Write a page with the loads and times")
      ->type_name("FILE.html");
  command->add_flag("--json", options->json, "Print one JSON object");
  options->routing.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace switchyard::tools
