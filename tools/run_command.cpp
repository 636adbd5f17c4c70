// `switchyard run`: a trace through the whole pipeline, verified, timed and reported.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "switchyard/errors.h"
#include "switchyard/output_file.h"
#include "tools/commands.h"
#include "tools/layer_pipeline.h"
#include "tools/placement_file.h"
#include "tools/rank_pipeline.h"
#include "tools/rank_threads.h"
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
  int64_t ranks = 1;
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

void check_options(const RunOptions& options) {
  check_range("--ranks", options.ranks, 1, kMaxRanks);
  if (options.ranks == 1 && !options.placement.empty()) {
    throw InvalidArgument("--placement changes nothing: --ranks is 1");
  }
  check_range("--hidden", options.hidden, 1, kMaxHidden);
  check_range("--batch", options.batch, 1, kMaxBatch);
  check_range("--repeat", options.repeat, 1, kMaxRepeat);
}

VectorView<const float> bias_of(const RunOptions& options, const Trace& trace,
                                const TraceLayer& layer, const RunResults& results) {
  if (!results.routing) return {};
  return options.routing.selection_bias(trace, layer);
}

void run_layers(const RunOptions& options, const Trace& trace,
                const std::vector<const TraceLayer*>& layers, const PipelineConfig& config,
                RunResults& results) {
  LayerPipeline pipeline(config, results.routing);
  results.backend = switchyard::name_of(pipeline.backend());
  Progress progress(layers.size());
  for (const TraceLayer* layer : layers) {
    results.layers.push_back(pipeline.run(*layer, bias_of(options, trace, *layer, results)));
    progress.done(results.layers.size());
  }
  results.verified_values = pipeline.verified_values();
}

/// Each rank is a thread; rank 0 tells what all did.
void run_layers_on_ranks(const RunOptions& options, const Trace& trace,
                         const std::vector<const TraceLayer*>& layers, PipelineConfig config,
                         RunResults& results) {
  if (config.backend == Backend::kCuda) {
    throw Unavailable("--backend is cuda, ranks that are threads exchange host memory");
  }
  if (config.backend == Backend::kAuto) config.backend = Backend::kCpu;
  if (config.threads.num_threads == 0) config.threads.num_threads = 1;
  results.backend = switchyard::name_of(config.backend);
  const int32_t num_experts =
      results.routing ? results.routing->num_expert_ids() : trace.num_experts();
  std::optional<PlacementFile> placements;
  if (!options.placement.empty()) {
    placements = read_placement(options.placement);
    placements->check(static_cast<int32_t>(options.ranks), num_experts, trace);
  }
  const auto blocks = ExpertPlacement::contiguous(num_experts, results.num_ranks);
  run_on_ranks(results.num_ranks, [&](Communicator& communicator) {
    RankPipeline pipeline(config, results.routing, communicator);
    std::vector<LayerResults> found;
    {
      Progress progress(communicator.rank() == 0 ? layers.size() : 0);
      for (const TraceLayer* layer : layers) {
        found.push_back(pipeline.run(*layer, bias_of(options, trace, *layer, results),
                                     placements ? placements->of_layer(trace, *layer) : blocks));
        progress.done(found.size());
      }
    }
    if (communicator.rank() != 0) return;
    results.transport = communicator.transport();
    results.layers = std::move(found);
    results.verified_values = pipeline.verified_values();
  });
}

void run(const RunOptions& options) {
  check_options(options);
  const Trace trace = Trace::open(options.trace);
  const std::vector<const TraceLayer*> layers = options.routing.select_layers(trace);
  const std::optional<RouterConfig> routing = routing_of(options.routing, trace, layers);
  const PipelineConfig config{.num_tokens = trace.num_tokens(),
                              .batch_tokens = options.batch,
                              .num_runs = options.repeat,
                              .num_experts = trace.num_experts(),
                              .top_k = trace.top_k(),
                              .hidden_size = options.hidden,
                              .dtype = parse_dtype(options.dtype),
                              .seed = options.seed,
                              .backend = options.routing.backend(),
                              .threads = options.routing.threads()};
  // Now, so that a long run does not end with a report that cannot be written.
  std::optional<OutputFile> report;
  if (!options.report.empty()) report.emplace(options.report);

  RunResults results{.trace = options.trace,
                     .model = trace.metadata("model").value_or(""),
                     .num_ranks = static_cast<int>(options.ranks),
                     .num_tokens = trace.num_tokens(),
                     .num_experts = trace.num_experts(),
                     .top_k = routing ? routing->top_k : trace.top_k(),
                     .routing = routing,
                     .backend = {},
                     .hidden_size = options.hidden,
                     .dtype = config.dtype,
                     .seed = options.seed};
  if (options.ranks == 1) {
    run_layers(options, trace, layers, config, results);
  } else {
    run_layers_on_ranks(options, trace, layers, config, results);
  }

  if (report) {
    report->write(report_page(results));
    report->commit();
  }
  if (options.json) {
    using Json = nlohmann::ordered_json;
    std::cout << to_json(results).dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    return;
  }
  print(results, std::cout);
  if (report) std::cout << "report: " << options.report << '\n';
}

}  // namespace

void add_run_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "run", "Run a trace through the whole pipeline with stand-in experts, and verify it");
  const auto options = std::make_shared<RunOptions>();
  command->add_option("trace", options->trace, "Trace with router_logits or expert_ids")
      ->required()
      ->type_name("TRACE");
  command->add_option("--ranks", options->ranks, "Ranks, each a thread; default 1")->type_name("R");
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
