// `switchyard offload`: a trace played again with limited fast memory.
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "switchyard/errors.h"
#include "switchyard/output_file.h"
#include "tools/commands.h"
#include "tools/format.h"
#include "tools/offload_replay.h"
#include "tools/offload_report.h"
#include "tools/routing_options.h"
#include "tools/text_table.h"

namespace switchyard::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr float kMostMicroseconds = 1e9f;

struct OffloadOptions {
  std::string trace;
  int64_t fast_slots = 0;
  std::string policy = "affinity";
  double decay = 0.97;
  bool no_transitions = false;
  bool prefetch = false;
  int64_t prefetch_budget = 4;
  std::optional<float> bonus;
  std::string bonus_scale = "absolute";
  std::optional<float> tau;
  std::optional<float> epsilon;
  int64_t keep = 0;
  std::optional<double> target_hit_rate;
  std::optional<double> miss_us;
  double upload_gbps = 25.0;
  int64_t expert_bytes = int64_t{16} << 20;
  std::string report;
  bool json = false;
  RoutingOptions routing;
};

[[noreturn]] void refuse(const std::string& name, const std::string& value,
                         const std::string& limit) {
  throw InvalidArgument(name + " is " + value + ", must be " + limit);
}

void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  refuse(name, std::to_string(value),
         "in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
}

/// Refuses NaN too.
void check_real(const char* name, float value, float low, float high) {
  if (value >= low && value <= high) return;
  refuse(name, format_shortest(value),
         "in [" + format_shortest(low) + ", " + format_shortest(high) + "]");
}

/// Which of two names it is.
bool is_second(const char* name, const std::string& value, const std::string& first,
               const std::string& second) {
  if (value != first && value != second) refuse(name, "'" + value + "'", first + " or " + second);
  return value == second;
}

/// The first option given that needs logits; empty for none.
std::string needs_logits(const OffloadOptions& options) {
  if (options.bonus.value_or(0.0f) != 0.0f) return "--bonus";
  if (options.tau.value_or(0.0f) != 0.0f) return "--tau";
  if (options.epsilon.value_or(0.0f) != 0.0f) return "--epsilon";
  if (options.keep != 0) return "--keep";
  return options.target_hit_rate ? "--target-hit-rate" : "";
}

ResidencyPreference preference_of(const OffloadOptions& options) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  ResidencyPreference preference;
  // Whoever gives a bound and no bonus wants all that the bound allows.
  preference.bonus = options.bonus.value_or(needs_logits(options).empty() ? 0.0f : kInfinity);
  if (options.target_hit_rate) {
    preference.bonus = options.bonus.value_or(BonusControllerConfig{}.initial_bonus);
    check_real("--target-hit-rate", static_cast<float>(*options.target_hit_rate), 0.0f, 1.0f);
    check_real("--bonus", preference.bonus, 0.0f, 1.0f);
  }
  if (is_second("--bonus-scale", options.bonus_scale, "absolute", "spread")) {
    preference.bonus_scale = BonusScale::kSpread;
  }
  preference.max_swap_loss = options.tau.value_or(preference.max_swap_loss);
  preference.max_sacrificed_share = options.epsilon.value_or(preference.max_sacrificed_share);
  preference.num_protected = static_cast<int32_t>(options.keep);
  check_real("--bonus", preference.bonus, 0.0f, kInfinity);
  check_real("--tau", preference.max_swap_loss, 0.0f, kInfinity);
  check_real("--epsilon", preference.max_sacrificed_share, 0.0f, kInfinity);
  return preference;
}

EvictionPolicy policy_of(const OffloadOptions& options) {
  try {
    return eviction_policy_of(options.policy.c_str());
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(std::string("--") + error.what());
  }
}

OffloadConfig config_of(const OffloadOptions& options, const OffloadReplay& replay) {
  OffloadConfig config;
  config.policy = policy_of(options);
  check_range("--fast-slots", options.fast_slots, 0, replay.num_experts());
  config.fast_slots = static_cast<int32_t>(options.fast_slots);
  config.decay = options.decay;
  check_real("--decay", static_cast<float>(options.decay), 1e-6f, 1.0f);
  config.learn_transitions = !options.no_transitions;
  config.prefetch = options.prefetch;
  check_range("--prefetch-budget", options.prefetch_budget, 1, 64);
  config.prefetch_budget = static_cast<int32_t>(options.prefetch_budget);
  check_real("--upload-gbps", static_cast<float>(options.upload_gbps), 1e-6f, 1e6f);
  check_range("--expert-bytes", options.expert_bytes, 1, int64_t{1} << 50);
  config.costs.upload_us = static_cast<double>(options.expert_bytes) / (options.upload_gbps * 1e3);
  config.costs.miss_us = options.miss_us.value_or(config.costs.upload_us);
  check_real("--miss-us", static_cast<float>(config.costs.miss_us), 0.0f, kMostMicroseconds);
  check_range("--keep", options.keep, 0, replay.top_k());
  config.preference = preference_of(options);
  config.target_hit_rate = options.target_hit_rate;
  const std::string needs = needs_logits(options);
  if (!needs.empty() && !replay.can_choose()) {
    throw InvalidArgument(needs + " changes nothing: " + options.trace + " has no router_logits");
  }
  if (!needs.empty() && config.policy == EvictionPolicy::kBelady) {
    throw InvalidArgument(needs + " changes the choice, which belady has to know beforehand");
  }
  return config;
}

Json to_json(const OffloadResults& results) {
  const MemoryMetrics& metrics = results.metrics;
  return {{"hit_rate", metrics.hit_rate()},
          {"hits", metrics.hits},
          {"misses", metrics.misses},
          {"page_ins", metrics.page_ins},
          {"evictions", metrics.page_outs},
          {"sacrificed_mass_mean", results.sacrificed_mass_mean()},
          {"sacrificed_mass_max", results.sacrificed_mass_max()},
          {"prefetches", results.prefetches},
          {"prefetch_hits", metrics.prefetch_hits},
          {"estimated_seconds", results.estimated_seconds()}};
}

Json to_json(const OffloadOptions& options, const OffloadReplay& replay,
             const OffloadStudy& study) {
  Json json = to_json(study.chosen);
  json["trace"] = options.trace;
  json["policy"] = name_of(study.chosen.config.policy);
  json["fast_slots"] = study.chosen.config.fast_slots;
  json["num_experts"] = replay.num_experts();
  json["top_k"] = replay.top_k();
  json["num_tokens"] = replay.num_tokens();
  json["last_bonus"] = study.chosen.last_bonus;
  json["costs"] = {{"miss_us", study.chosen.config.costs.miss_us},
                   {"upload_us", study.chosen.config.costs.upload_us}};
  Json layers = Json::array();
  for (const OffloadedLayer& layer : study.chosen.layers) {
    const MemoryMetrics counts{.hits = layer.hits, .misses = layer.misses};
    layers.push_back({{"layer", layer.index},
                      {"hit_rate", counts.hit_rate()},
                      {"hits", layer.hits},
                      {"misses", layer.misses},
                      {"sacrificed_mass_mean",
                       layer.sacrificed_mass_sum /
                           static_cast<double>(std::max<int64_t>(1, replay.num_tokens()))},
                      {"sacrificed_mass_max", layer.sacrificed_mass_max}});
  }
  json["layers"] = std::move(layers);
  Json plain = Json::object();
  for (const OffloadResults& results : study.plain) {
    plain[name_of(results.config.policy)] = to_json(results);
  }
  json["plain"] = std::move(plain);
  return json;
}

std::vector<std::string> cells(const std::string& name, const OffloadResults& results) {
  const MemoryMetrics& metrics = results.metrics;
  return {name,
          format_fixed(100.0 * metrics.hit_rate(), 2),
          format_count(metrics.hits),
          format_count(metrics.misses),
          format_count(metrics.page_ins),
          format_count(metrics.page_outs),
          results.prefetches > 0 ? format_count(results.prefetches) : "-",
          results.prefetches > 0 ? format_count(metrics.prefetch_hits) : "-",
          format_duration(results.estimated_seconds()),
          format_fixed(100.0 * results.sacrificed_mass_mean(), 3),
          format_fixed(100.0 * results.sacrificed_mass_max(), 2)};
}

void print(const OffloadOptions& options, const OffloadReplay& replay, const OffloadStudy& study) {
  const OffloadConfig& config = study.chosen.config;
  std::cout << options.trace << "\n"
            << format_count(replay.num_tokens()) << " tokens, top " << replay.top_k() << " of "
            << replay.num_experts() << ", " << study.chosen.layers.size() << " layers; "
            << config.fast_slots << " fast slots each; a miss "
            << format_duration(config.costs.miss_us * 1e-6) << ", an upload "
            << format_duration(config.costs.upload_us * 1e-6) << "\n\n";
  TextTable table({"policy", "hit %", "hits", "misses", "page-ins", "evictions", "prefetched",
                   "used", "time", "sacrificed %", "at most %"});
  for (const OffloadResults& results : study.plain) {
    table.add_row(cells(name_of(results.config.policy), results));
  }
  table.add_rule();
  table.add_row(cells(std::string("this: ") + name_of(config.policy), study.chosen));
  table.print(std::cout);
  if (config.target_hit_rate) {
    std::cout << "\nthe bonus ended at "
              << format_fixed(static_cast<double>(study.chosen.last_bonus), 3) << "\n";
  }
  std::cout << "\ntime: misses and useless prefetches; sacrificed: probability of the best experts "
               "given up\nfor resident ones, a token; the rows above the last: plain choices, "
               "nothing prefetched\n";
}

void run(const OffloadOptions& options) {
  static_cast<void>(policy_of(options));  // before anything is read
  const Trace trace = Trace::open(options.trace);
  const std::vector<const TraceLayer*> layers = options.routing.select_layers(trace);
  const OffloadReplay replay(trace, layers, routing_of(options.routing, trace, layers),
                             options.routing);
  const OffloadConfig config = config_of(options, replay);
  std::optional<OutputFile> report;
  if (!options.report.empty()) report.emplace(options.report);
  const OffloadStudy study = study_offload(replay, config);
  if (report) {
    report->write(offload_page(options.trace, replay, study));
    report->commit();
  }
  if (options.json) {
    std::cout
        << to_json(options, replay, study).dump(-1, ' ', false, Json::error_handler_t::replace)
        << '\n';
    return;
  }
  print(options, replay, study);
  if (report) std::cout << "report: " << options.report << '\n';
}

}  // namespace

void add_offload_command(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("offload", "Replay a trace with fast memory for some of the experts");
  const auto options = std::make_shared<OffloadOptions>();
  command->add_option("trace", options->trace, "Trace with router_logits or expert_ids")
      ->required()
      ->type_name("TRACE");
  command->add_option("--fast-slots", options->fast_slots, "Experts of each layer in fast memory")
      ->required()
      ->type_name("N");
  command
      ->add_option("--policy", options->policy,
                   "Which expert leaves: lru, lfu, adaptive, affinity (default) or belady")
      ->type_name("NAME");
  command->add_option("--decay", options->decay, "Of affinity, from token to token, default 0.97")
      ->type_name("X");
  command->add_flag("--no-transitions", options->no_transitions,
                    "Let affinity not learn which experts follow which");
  const std::string choice = "Choice";
  command
      ->add_option(
          "--bonus", options->bonus,
          "Added to resident experts' scores; default: none, or without limit where --tau, "
          "--epsilon or --keep is given")
      ->type_name("X")
      ->group(choice);
  command
      ->add_option("--bonus-scale", options->bonus_scale,
                   "absolute (default), or spread: a share of the row's largest difference")
      ->type_name("NAME")
      ->group(choice);
  command
      ->add_option("--tau", options->tau,
                   "Most probability that giving one expert up may lose, default 1")
      ->type_name("X")
      ->group(choice);
  command
      ->add_option("--epsilon", options->epsilon,
                   "Most of its best experts' probability that a token may give up, as a share, "
                   "default 0.02")
      ->type_name("X")
      ->group(choice);
  command->add_option("--keep", options->keep, "Best experts that are always chosen, default 0")
      ->type_name("J")
      ->group(choice);
  command
      ->add_option("--target-hit-rate", options->target_hit_rate,
                   "Let the bonus follow a hit rate, from --bonus (default 0.15) up to 1")
      ->type_name("X")
      ->group(choice);
  const std::string traffic = "Traffic";
  command
      ->add_flag("--prefetch", options->prefetch,
                 "Bring in what the layer before makes likely, where it pays")
      ->group(traffic);
  command
      ->add_option("--prefetch-budget", options->prefetch_budget,
                   "Prefetches a layer and token, default 4")
      ->type_name("N")
      ->group(traffic);
  command
      ->add_option("--miss-us", options->miss_us,
                   "Microseconds that a miss costs, default: an upload's")
      ->type_name("X")
      ->group(traffic);
  command->add_option("--upload-gbps", options->upload_gbps, "Gigabytes a second, default 25")
      ->type_name("X")
      ->group(traffic);
  command->add_option("--expert-bytes", options->expert_bytes, "Of one expert, default 16 MiB")
      ->type_name("N")
      ->group(traffic);
  command->add_option("--report", options->report, "Write a page with the results")
      ->type_name("FILE.html");
  command->add_flag("--json", options->json, "Print one JSON object");
  options->routing.add_to(*command);
  command->callback([options] { run(*options); });
}

}  // namespace switchyard::tools
