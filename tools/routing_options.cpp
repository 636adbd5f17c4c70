#include "tools/routing_options.h"

#include <algorithm>
#include <charconv>

#include "switchyard/errors.h"
#include "switchyard/model_presets.h"

namespace switchyard::tools {
namespace {

/// An enumerator by its name; '-' and '_' are the same.
template <typename Enum>
Enum parse_enum(const std::string& source, std::string text, std::initializer_list<Enum> values,
                const char* names) {
  const std::string given = text;
  std::replace(text.begin(), text.end(), '-', '_');
  for (const Enum value : values) {
    if (text == name_of(value)) return value;
  }
  throw InvalidArgument(source + " is '" + given + "', must be " + names);
}

ScoreFunction parse_score(const std::string& source, const std::string& text) {
  return parse_enum(source, text,
                    {ScoreFunction::kSoftmax, ScoreFunction::kSigmoid, ScoreFunction::kSqrtSoftplus,
                     ScoreFunction::kIdentity},
                    "softmax, sigmoid, sqrt-softplus or identity");
}

GroupScore parse_group_score(const std::string& source, const std::string& text) {
  return parse_enum(source, text, {GroupScore::kMax, GroupScore::kTop2Sum, GroupScore::kTopKSum},
                    "max, top2-sum or topk-sum");
}

template <typename Number>
Number parse_number(const std::string& source, const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw InvalidArgument(source + " is '" + text + "', must be a number");
  }
  return value;
}

}  // namespace

const char* name_of(ScoreFunction score) {
  switch (score) {
    case ScoreFunction::kSoftmax:
      return "softmax";
    case ScoreFunction::kSigmoid:
      return "sigmoid";
    case ScoreFunction::kSqrtSoftplus:
      return "sqrt_softplus";
    case ScoreFunction::kIdentity:
      return "identity";
  }
  return "?";
}

const char* name_of(GroupScore score) {
  switch (score) {
    case GroupScore::kMax:
      return "max";
    case GroupScore::kTop2Sum:
      return "top2_sum";
    case GroupScore::kTopKSum:
      return "topk_sum";
  }
  return "?";
}

nlohmann::ordered_json to_json(const RouterConfig& config) {
  return {{"num_experts", config.num_experts},
          {"top_k", config.top_k},
          {"score_function", name_of(config.score_function)},
          {"renormalize", config.renormalize},
          {"routed_scaling_factor", config.routed_scaling_factor},
          {"num_groups", config.num_groups},
          {"top_groups", config.top_groups},
          {"group_score", name_of(config.group_score)},
          {"num_shared_experts", config.num_shared_experts}};
}

void RoutingOptions::add_to(CLI::App& command, bool with_groups) {
  const std::string group = "Routing";
  const auto changes = [&](CLI::Option* option) {
    changes_routing_.push_back(option);
    return option->group(group);
  };
  changes(command.add_option("--model", model_,
                             "Preset to start from (switchyard info lists them); the options below "
                             "override it. Without it the trace's metadata is the start"))
      ->type_name("NAME");
  changes(command.add_option("--top-k", top_k_, "Experts a token"))->type_name("K");
  changes(command.add_option("--score", score_, "softmax, sigmoid, sqrt-softplus or identity"))
      ->type_name("NAME");
  CLI::Option* on = changes(command.add_flag_callback(
      "--renormalize", [this] { renormalize_ = true; }, "Divide the weights by their sum"));
  changes(
      command.add_flag_callback(
          "--no-renormalize", [this] { renormalize_ = false; }, "Leave the weights as they are"))
      ->excludes(on);
  changes(command.add_option("--scale", scale_, "Multiplies every weight"))->type_name("X");
  if (with_groups) {
    changes(command.add_option("--groups", groups_, "Groups of experts"))->type_name("G");
    changes(command.add_option("--top-groups", top_groups_, "Groups kept for each token"))
        ->type_name("g");
    changes(command.add_option("--group-score", group_score_, "max, top2-sum or topk-sum"))
        ->type_name("NAME");
  }
  changes(command.add_option(
              "--bias", bias_,
              "[E] F32 tensor of the trace that is added to the scores for the choice only, in "
              "every layer; 'none' for no bias. Default: each layer's correction_bias where the "
              "trace has it, unless --model names a model that has none"))
      ->type_name("TENSOR");
  changes(command.add_option("--append-shared-experts", shared_experts_,
                             "Shared experts appended to every token at weight 1"))
      ->type_name("N");
  command.add_option("--layer", layer_, "Layer number or 'all' (default)")
      ->type_name("N")
      ->group(group);
  command.add_option("--backend", backend_, "auto (default), reference, cpu or cuda")
      ->type_name("NAME")
      ->group(group);
  command
      .add_option("--threads", threads_, "Threads of the CPU backend; 0 (default): all there are")
      ->type_name("N")
      ->group(group);
}

std::vector<const TraceLayer*> RoutingOptions::select_layers(const Trace& trace) const {
  std::vector<const TraceLayer*> selected;
  std::string known;
  for (const TraceLayer& layer : trace.layers()) {
    if (layer_ == "all" || layer_ == std::to_string(layer.index)) selected.push_back(&layer);
    known += (known.empty() ? "" : ", ") + std::to_string(layer.index);
  }
  if (selected.empty()) {
    throw InvalidArgument("--layer is '" + layer_ + "', " + trace.file().source_name() +
                          " has layers " + known);
  }
  return selected;
}

RouterConfig RoutingOptions::config_from_metadata(const Trace& trace) const {
  RouterConfig config;
  config.num_experts = trace.num_experts();
  config.top_k = trace.top_k();
  if (config.top_k == 0 && !top_k_) {
    throw InvalidArgument(trace.file().source_name() +
                          " does not say top_k; give --top-k or --model");
  }
  const auto read = [&](const char* key, const auto& use) {
    const std::optional<std::string> text = trace.metadata(key);
    if (text) use(trace.file().source_name() + ": metadata " + key, *text);
  };
  using Text = const std::string&;
  if (!score_) {
    read("score_function",
         [&](Text source, Text text) { config.score_function = parse_score(source, text); });
  }
  if (!renormalize_) {
    read("renormalize", [&](Text source, Text text) {
      if (text != "true" && text != "false") {
        throw InvalidArgument(source + " is '" + text + "', must be true or false");
      }
      config.renormalize = text == "true";
    });
  }
  if (!scale_) {
    read("routed_scaling_factor", [&](Text source, Text text) {
      config.routed_scaling_factor = parse_number<float>(source, text);
    });
  }
  if (!groups_) {
    read("num_groups",
         [&](Text source, Text text) { config.num_groups = parse_number<int32_t>(source, text); });
    read("top_groups",
         [&](Text source, Text text) { config.top_groups = parse_number<int32_t>(source, text); });
  }
  if (!group_score_) {
    read("group_score",
         [&](Text source, Text text) { config.group_score = parse_group_score(source, text); });
  }
  return config;
}

RouterConfig RoutingOptions::router_config(const Trace& trace) const {
  RouterConfig config;
  if (model_) {
    const ModelPreset& preset = find_model_preset(*model_);
    if (preset.num_experts != trace.num_experts()) {
      throw InvalidArgument("model '" + *model_ + "' has " + std::to_string(preset.num_experts) +
                            " experts, " + trace.file().source_name() + " has " +
                            std::to_string(trace.num_experts()));
    }
    config = to_router_config(preset, renormalize_, scale_);
  } else {
    config = config_from_metadata(trace);
  }
  if (top_k_) config.top_k = *top_k_;
  if (score_) config.score_function = parse_score("--score", *score_);
  if (renormalize_) config.renormalize = *renormalize_;
  if (scale_) config.routed_scaling_factor = *scale_;
  if (groups_) {
    if (*groups_ > 1 && !top_groups_) throw InvalidArgument("--groups needs --top-groups");
    config.num_groups = *groups_;
    config.top_groups = 1;
  }
  if (top_groups_) config.top_groups = *top_groups_;
  if (group_score_) config.group_score = parse_group_score("--group-score", *group_score_);
  config.num_shared_experts = shared_experts_;
  validate(config);
  return config;
}

VectorView<const float> RoutingOptions::selection_bias(const Trace& trace,
                                                       const TraceLayer& layer) const {
  if (bias_ == "none") return {};
  if (!bias_) {
    if (!model_) return layer.correction_bias;
    if (!find_model_preset(*model_).has_selection_bias) return {};
    if (layer.correction_bias.empty()) {
      throw InvalidArgument("model '" + *model_ + "' selects with a bias, but " +
                            trace.file().source_name() + " has no layers." +
                            std::to_string(layer.index) +
                            ".correction_bias; name a tensor with --bias, or pass --bias none");
    }
    return layer.correction_bias;
  }
  const Tensor* tensor = trace.file().find(*bias_);
  if (tensor == nullptr) {
    throw InvalidArgument("--bias: " + trace.file().source_name() + " has no tensor '" + *bias_ +
                          "'");
  }
  if (tensor->dtype != "F32" || tensor->shape != std::vector<int64_t>{trace.num_experts()}) {
    throw InvalidArgument("--bias: tensor '" + *bias_ + "' must be F32 with " +
                          std::to_string(trace.num_experts()) + " elements");
  }
  return {reinterpret_cast<const float*>(tensor->bytes.data()), tensor->shape[0]};
}

Backend RoutingOptions::backend() const {
  for (const Backend backend :
       {Backend::kAuto, Backend::kReference, Backend::kCpu, Backend::kCuda}) {
    if (backend_ == switchyard::name_of(backend)) return backend;
  }
  throw InvalidArgument("--backend is '" + backend_ + "', must be auto, reference, cpu or cuda");
}

CpuThreads RoutingOptions::threads() const {
  if (threads_ < 0) {
    throw InvalidArgument("--threads is " + std::to_string(threads_) + ", must be 0 or more");
  }
  return {.num_threads = threads_};
}

std::string RoutingOptions::first_given() const {
  for (const CLI::Option* option : changes_routing_) {
    if (option->count() > 0) return option->get_name();
  }
  return {};
}

}  // namespace switchyard::tools
