// The switchyard command from outside: what it prints, writes and refuses.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "switchyard/buffer.h"
#include "switchyard/router.h"
#include "switchyard/trace.h"
#include "tests/command_expectations.h"
#include "tests/temporary_directory.h"
#include "tests/tensor_bytes.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;
using testing::bytes_of;
using testing::CommandResult;
using testing::entry;
using testing::expect_refusal;
using testing::expect_success;
using testing::read_whole;
using testing::run_command;
using testing::TemporaryDirectory;
using testing::tensor_file;

const std::string kEnglish = SWITCHYARD_SOURCE_DIR "/examples/traces/english.safetensors";
const std::string kCpp = SWITCHYARD_SOURCE_DIR "/examples/traces/cpp.safetensors";

/// A trace of one layer of float32 logits, 2 tokens and 4 experts, with a correction bias.
std::string small_trace(const std::string& metadata = "\"top_k\":\"2\"") {
  const std::vector<float> logits{1, 4, 2, 3, 4, 3, 2, 1};
  const std::vector<float> bias{0, -9, 0, 0};
  const std::vector<float> other{0, 0, 0};
  return tensor_file("{\"__metadata__\":{" + metadata + "}," +
                         entry("layers.5.router_logits", "F32", "[2,4]", 0, 32) + "," +
                         entry("layers.5.correction_bias", "F32", "[4]", 32, 48) + "," +
                         entry("short_bias", "F32", "[3]", 48, 60) + "}",
                     bytes_of(logits) + bytes_of(bias) + bytes_of(other));
}

std::vector<int32_t> ids_of(const std::filesystem::path& path, std::size_t layer = 0) {
  const Trace trace = Trace::open(path);
  const MatrixView<const int32_t> ids = trace.layers().at(layer).expert_ids;
  return {ids.data, ids.data + ids.rows * ids.cols};
}

TEST(RouteCommand, WritesWhatTheLibraryComputes) {
  const TemporaryDirectory directory;
  const std::string out = directory / "out.safetensors";
  expect_success(run_command({"route", kEnglish, "--out", out}));
  EXPECT_EQ(directory.num_entries(), 1);

  const Trace input = Trace::open(kEnglish);
  const Trace output = Trace::open(out);
  ASSERT_EQ(output.layers().size(), input.layers().size());
  const Router router({.num_experts = 64, .top_k = 8}, Backend::kReference);
  Buffer<int32_t> ids(2048 * 8);
  Buffer<float> weights(2048 * 8);
  Buffer<int64_t> counts(64);
  for (std::size_t i = 0; i < input.layers().size(); ++i) {
    router.route({.logits = input.layers()[i].router_logits},
                 {.expert_ids = ids.matrix(2048, 8),
                  .gate_weights = weights.matrix(2048, 8),
                  .tokens_per_expert = counts.view()});
    const TraceLayer& layer = output.layers()[i];
    ASSERT_EQ(layer.expert_ids.rows, 2048);
    ASSERT_EQ(layer.expert_ids.cols, 8);
    EXPECT_TRUE(std::equal(ids.begin(), ids.end(), layer.expert_ids.data));
    EXPECT_TRUE(std::equal(weights.begin(), weights.end(), layer.gate_weights.data));
    EXPECT_TRUE(std::equal(counts.begin(), counts.end(), layer.tokens_per_expert.data));
  }
  EXPECT_EQ(output.metadata("top_k"), "8");
  EXPECT_EQ(output.metadata("num_experts"), "64");
  EXPECT_EQ(output.metadata("score_function"), "softmax");
  EXPECT_EQ(output.metadata("renormalize"), "true");
  EXPECT_EQ(output.metadata("domain"), "english");
}

TEST(RouteCommand, TheSameInputGivesTheSameBytes) {
  const TemporaryDirectory directory;
  for (const char* name : {"a", "b"}) {
    expect_success(run_command({"route", kCpp, "--out", directory / name}));
  }
  EXPECT_EQ(read_whole(directory / "a"), read_whole(directory / "b"));
}

TEST(RouteCommand, EveryBackendAndThreadCountGivesTheSameBytes) {
  const TemporaryDirectory directory;
  expect_success(run_command({"route", kCpp, "--out", directory / "a", "--backend", "reference"}));
  expect_success(
      run_command({"route", kCpp, "--out", directory / "b", "--backend", "cpu", "--threads", "3"}));
  EXPECT_EQ(read_whole(directory / "a"), read_whole(directory / "b"));
}

TEST(RouteCommand, JsonIsOneObject) {
  const TemporaryDirectory directory;
  const CommandResult result = run_command(
      {"route", kEnglish, "--out", directory / "o", "--layer", "2", "--json", "--top-k", "3"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("routing").at("top_k"), 3);
  ASSERT_EQ(json.at("layers").size(), 1u);
  EXPECT_EQ(json.at("layers")[0].at("layer"), 2);
  const Trace output = Trace::open(directory / "o");
  ASSERT_EQ(output.layers().size(), 1u);
  EXPECT_EQ(output.layers()[0].index, 2);
  EXPECT_EQ(output.top_k(), 3);
}

TEST(RouteCommand, TheTracesCorrectionBiasChangesTheChoiceUnlessToldOtherwise) {
  const TemporaryDirectory directory;
  const std::string trace = directory.write("t", small_trace());
  const std::string out = directory / "o";
  expect_success(run_command({"route", trace, "--out", out}));
  EXPECT_EQ(ids_of(out), (std::vector<int32_t>{3, 2, 0, 2}));
  expect_success(run_command({"route", trace, "--out", out, "--bias", "none"}));
  EXPECT_EQ(ids_of(out), (std::vector<int32_t>{1, 3, 0, 1}));
  expect_success(run_command({"route", trace, "--out", out, "--bias", "layers.5.correction_bias"}));
  EXPECT_EQ(ids_of(out), (std::vector<int32_t>{3, 2, 0, 2}));
}

TEST(RouteCommand, FlagsOverrideTheMetadata) {
  const TemporaryDirectory directory;
  const std::string trace = directory.write(
      "t",
      small_trace("\"top_k\":\"2\",\"score_function\":\"sigmoid\",\"renormalize\":\"false\","
                  "\"routed_scaling_factor\":\"2.5\",\"num_groups\":\"2\",\"top_groups\":\"1\""));
  CommandResult result = run_command({"route", trace, "--out", directory / "o", "--json"});
  expect_success(result);
  Json routing = Json::parse(result.out).at("routing");
  EXPECT_EQ(routing.at("score_function"), "sigmoid");
  EXPECT_EQ(routing.at("renormalize"), false);
  EXPECT_EQ(routing.at("routed_scaling_factor"), 2.5);
  EXPECT_EQ(routing.at("num_groups"), 2);
  result = run_command({"route", trace, "--out", directory / "o", "--json", "--score",
                        "sqrt-softplus", "--renormalize", "--scale", "0.5", "--groups", "4",
                        "--top-groups", "2", "--group-score", "topk-sum", "--top-k", "2"});
  expect_success(result);
  routing = Json::parse(result.out).at("routing");
  EXPECT_EQ(routing.at("score_function"), "sqrt_softplus");
  EXPECT_EQ(routing.at("renormalize"), true);
  EXPECT_EQ(routing.at("routed_scaling_factor"), 0.5);
  EXPECT_EQ(routing.at("num_groups"), 4);
  EXPECT_EQ(routing.at("top_groups"), 2);
  EXPECT_EQ(routing.at("group_score"), "topk_sum");
}

TEST(RouteCommand, APresetComesBeforeTheMetadata) {
  const TemporaryDirectory directory;
  const CommandResult result = run_command(
      {"route", kEnglish, "--out", directory / "o", "--json", "--model", "olmoe", "--top-k", "2"});
  expect_success(result);
  const Json routing = Json::parse(result.out).at("routing");
  EXPECT_EQ(routing.at("renormalize"), false);  // the metadata says true
  EXPECT_EQ(routing.at("top_k"), 2);
}

TEST(RouteCommand, AppendedSharedExpertsAreSlotsOfTheResult) {
  const TemporaryDirectory directory;
  const std::string trace = directory.write("t", small_trace());
  expect_success(
      run_command({"route", trace, "--out", directory / "o", "--append-shared-experts", "1"}));
  EXPECT_EQ(ids_of(directory / "o"), (std::vector<int32_t>{3, 2, 4, 0, 2, 4}));
  const Trace output = Trace::open(directory / "o");
  EXPECT_EQ(output.num_experts(), 5);
  EXPECT_EQ(output.metadata("num_shared_experts"), "1");
  expect_success(run_command({"run", directory / "o"}));
}

TEST(RouteCommand, NoTokensAreRoutedToNoTokens) {
  const TemporaryDirectory directory;
  const std::string trace = directory.write(
      "t", tensor_file("{" + entry("layers.0.router_logits", "F32", "[0,4]", 0, 0) + "}"));
  expect_success(run_command({"route", trace, "--out", directory / "o", "--top-k", "2"}));
  EXPECT_EQ(Trace::open(directory / "o").num_tokens(), 0);
  expect_success(run_command({"run", trace, "--top-k", "2"}));
}

TEST(RunCommand, JsonSaysThatItVerified) {
  const CommandResult result = run_command({"run", kEnglish, "--json", "--hidden", "32"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("verified"), true);
  EXPECT_EQ(json.at("verified_values"), 4 * 2048 * 32);
  ASSERT_EQ(json.at("layers").size(), 4u);
  for (const Json& layer : json.at("layers")) {
    const auto loads = layer.at("tokens_per_expert").get<std::vector<int64_t>>();
    EXPECT_EQ(loads.size(), 64u);
    EXPECT_EQ(std::accumulate(loads.begin(), loads.end(), int64_t{0}), 2048 * 8);
    EXPECT_GT(layer.at("max_over_mean").get<double>(), 2.0);
    EXPECT_EQ(layer.at("degenerate_rows"), 0);
    EXPECT_GT(layer.at("seconds").at("route").get<double>(), 0.0);
  }
}

TEST(RunCommand, LoadsDoNotDependOnTheBatch) {
  Json loads;
  for (const char* batch : {"1000000", "2048", "100", "7"}) {
    const CommandResult result = run_command({"run", kCpp, "--json", "--hidden", "3", "--batch",
                                              batch, "--layer", "1", "--dtype", "f32"});
    expect_success(result);
    const Json now = Json::parse(result.out).at("layers")[0].at("tokens_per_expert");
    if (!loads.is_null()) {
      EXPECT_EQ(now, loads) << batch;
    }
    loads = now;
  }
}

TEST(RunCommand, TakesChoicesFromATraceWithoutLogits) {
  const TemporaryDirectory directory;
  const std::string routed = directory / "routed";
  expect_success(run_command({"route", kEnglish, "--out", routed}));
  const CommandResult result = run_command({"run", routed, "--json"});
  expect_success(result);
  const CommandResult direct = run_command({"run", kEnglish, "--json"});
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("routing"), Json());
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(json.at("layers")[i].at("tokens_per_expert"),
              Json::parse(direct.out).at("layers")[i].at("tokens_per_expert"));
    EXPECT_EQ(json.at("layers")[i].at("degenerate_rows"), Json());
  }
}

TEST(RunCommand, IdsWithoutWeightsAndWithPaddingAreEnough) {
  const TemporaryDirectory directory;
  const std::string trace = directory.write(
      "t", tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                           entry("layers.0.expert_ids", "I32", "[2,2]", 0, 16) + "}",
                       bytes_of(std::vector<int32_t>{3, -1, -1, -1})));
  const CommandResult result = run_command({"run", trace, "--json"});
  expect_success(result);
  const Json layer = Json::parse(result.out).at("layers")[0];
  EXPECT_EQ(layer.at("tokens_per_expert"), (std::vector<int64_t>{0, 0, 0, 1}));
  EXPECT_EQ(layer.at("mean_weight_entropy"), Json());
}

TEST(RunCommand, TheTableHasALineForEveryLayerAndATotal) {
  const CommandResult result = run_command({"run", kEnglish});
  expect_success(result);
  for (const char* part : {"\n0 ", "\n1 ", "\n2 ", "\n3 ", "\nall ", "expert 60", "bit for bit"}) {
    EXPECT_NE(result.out.find(part), result.out.npos) << part;
  }
}

TEST(RunCommand, TheReportIsOnePageThatFetchesNothing) {
  const TemporaryDirectory directory;
  const std::string trace =
      directory.write("t", small_trace("\"top_k\":\"2\",\"model\":\"</script><b>\""));
  expect_success(run_command({"run", trace, "--report", directory / "r.html"}));
  std::string page = read_whole(directory / "r.html");
  // What names SVG's elements looks like an address, but nobody goes there.
  constexpr std::string_view kSvg = "http://www.w3.org/2000/svg";
  if (const size_t at = page.find(kSvg); at != page.npos) page.erase(at, kSvg.size());
  EXPECT_EQ(page.rfind("<!doctype html>", 0), 0u);
  EXPECT_NE(page.find("tokens_per_expert"), page.npos);
  EXPECT_EQ(page.find("{{run}}"), page.npos);
  EXPECT_EQ(page.find("</script>"), page.rfind("</script>"));
  for (const char* outside : {"http:", "https:", "src=", "<link", "@import", "url("}) {
    EXPECT_EQ(page.find(outside), page.npos) << outside;
  }
}

TEST(RunCommand, DegenerateRowsAreCounted) {
  const TemporaryDirectory directory;
  const std::string trace = directory.write(
      "t", tensor_file("{" + entry("layers.0.router_logits", "F32", "[2,2]", 0, 16) + "}",
                       bytes_of(std::vector<float>{NAN, NAN, 1, 2})));
  const CommandResult result = run_command({"run", trace, "--json", "--top-k", "1"});
  expect_success(result);
  EXPECT_EQ(Json::parse(result.out).at("layers")[0].at("degenerate_rows"), 1);
}

TEST(InfoCommand, JsonNamesBackendsTargetsAndModels) {
  const CommandResult result = run_command({"info", "--json"});
  expect_success(result);
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json.at("version"), "0.1.0");
  const auto backends = json.at("backends").get<std::vector<std::string>>();
  EXPECT_NE(std::find(backends.begin(), backends.end(), "reference"), backends.end());
  EXPECT_NE(std::find(backends.begin(), backends.end(), "cpu"), backends.end());
  EXPECT_FALSE(json.at("cpu_targets").empty());
  EXPECT_EQ(json.at("gpus").empty(), !json.at("gpu_note").get<std::string>().empty());
  EXPECT_GE(json.at("models").size(), 19u);
}

TEST(InfoCommand, PrintsTheSameForPeople) {
  const CommandResult result = run_command({"info"});
  expect_success(result);
  for (const char* part : {"backends", "CPU targets", "GPUs", "deepseek-v3"}) {
    EXPECT_NE(result.out.find(part), result.out.npos) << part;
  }
}

TEST(Command, HelpAndVersionGoToStandardOutput) {
  for (const char* flag : {"--help", "--version"}) {
    const CommandResult result = run_command({flag});
    expect_success(result);
    EXPECT_NE(result.out.find("switchyard"), result.out.npos);
  }
  EXPECT_NE(run_command({"run", "--help"}).out.find("--top-k"), std::string::npos);
}

TEST(Command, LogLevelDebugTellsOfTheFileOnStandardError) {
  const CommandResult result = run_command({"run", kEnglish, "--json", "--log-level", "debug"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("4 tensors"), result.err.npos) << result.err;
  EXPECT_TRUE(Json::accept(result.out));
}

TEST(Command, AFullStandardOutputIsAFailure) {
  const CommandResult result = run_command({"info"}, "/dev/full");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.err, "switchyard: cannot write to standard output\n");
}

/// A command line that is refused. TRACE, SMALL and OUT stand for files.
struct Refusal {
  const char* name;
  std::vector<std::string> arguments;
  std::string message;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << refusal.name; }

class CommandRefuses : public ::testing::TestWithParam<Refusal> {};

TEST_P(CommandRefuses, WithOneLineAndNoFile) {
  const TemporaryDirectory inputs;
  const TemporaryDirectory outputs;
  std::vector<std::string> arguments = GetParam().arguments;
  for (std::string& argument : arguments) {
    if (argument == "TRACE") argument = kEnglish;
    if (argument == "SMALL") argument = inputs.write("small", small_trace());
    if (argument == "OUT") argument = outputs / "out";
    if (argument == "MISSING_DIRECTORY") argument = outputs / "missing/out";
    if (argument == "DIRECTORY") argument = outputs / ".";
  }
  expect_refusal(run_command(arguments), GetParam().message);
  EXPECT_EQ(outputs.num_entries(), 0);
}

Refusal route(const char* name, std::vector<std::string> extra, std::string message,
              const char* trace = "TRACE") {
  extra.insert(extra.begin(), {"route", trace, "--out", "OUT"});
  return {name, std::move(extra), std::move(message)};
}

Refusal run(const char* name, std::vector<std::string> extra, std::string message) {
  extra.insert(extra.begin(), {"run", "TRACE"});
  return {name, std::move(extra), std::move(message)};
}

const Refusal kRefusals[] = {
    {"no_subcommand", {}, "subcommand"},
    {"unknown_subcommand", {"fly"}, "fly"},
    {"no_trace", {"route", "--out", "OUT"}, "trace"},
    {"no_out", {"route", "TRACE"}, "--out"},
    {"missing_file", {"run", "/nonexistent/trace"}, "No such file or directory"},
    {"directory_as_trace", {"run", "DIRECTORY"}, "not a regular file"},
    {"log_level", {"info", "--log-level", "loud"}, "--log-level is 'loud'"},
    {"info_flag", {"info", "--colour"}, "--colour"},
    route("unknown_flag", {"--fast"}, "--fast"),
    route("extra_argument", {"another"}, "another"),
    route("top_k_zero", {"--top-k", "0"}, "top_k is 0"),
    route("top_k_negative", {"--top-k", "-1"}, "top_k is -1"),
    route("top_k_above_experts", {"--top-k", "5"}, "top_k is 5, must not exceed num_experts, 4",
          "SMALL"),
    route("top_k_above_64", {"--top-k", "65"}, "top_k is 65, must be in [1, 64]"),
    route("top_k_text", {"--top-k", "many"}, "--top-k"),
    route("top_k_huge", {"--top-k", "99999999999"}, "--top-k"),
    route("scale_nan", {"--scale", "nan"}, "routed_scaling_factor is nan"),
    route("scale_infinite", {"--scale", "inf"}, "routed_scaling_factor is inf"),
    route("scale_negative", {"--scale", "-1"}, "routed_scaling_factor is -1"),
    route("scale_zero", {"--scale", "0"}, "routed_scaling_factor is 0"),
    route("groups_do_not_divide", {"--groups", "7", "--top-groups", "2"}, "num_groups is 7"),
    route("groups_zero", {"--groups", "0"}, "num_groups is 0"),
    route("groups_alone", {"--groups", "8"}, "--groups needs --top-groups"),
    route("top_groups_above_groups", {"--groups", "4", "--top-groups", "5"}, "top_groups is 5"),
    route("groups_too_few_experts", {"--groups", "64", "--top-groups", "7"}, "top_k is 8"),
    route("group_score", {"--group-score", "median"}, "--group-score is 'median'"),
    route("score", {"--score", "relu"}, "--score is 'relu'"),
    route("backend", {"--backend", "tpu"}, "--backend is 'tpu'"),
    route("backend_cuda", {"--backend", "cuda"}, "backend cuda"),
    route("threads", {"--threads", "-1"}, "--threads is -1"),
    route("shared_experts", {"--append-shared-experts", "65"}, "num_shared_experts is 65"),
    route("model_unknown", {"--model", "gpt-9"}, "model 'gpt-9' is not known"),
    route("model_of_another_size", {"--model", "mixtral-8x7b"},
          "model 'mixtral-8x7b' has 8 experts"),
    route("layer_unknown", {"--layer", "4"}, "--layer is '4'"),
    route("layer_text", {"--layer", "first"}, "--layer is 'first'"),
    route("bias_missing", {"--bias", "nothing"}, "no tensor 'nothing'"),
    route("bias_length", {"--bias", "short_bias"}, "must be F32 with 4 elements", "SMALL"),
    route("bias_type", {"--bias", "layers.5.router_logits"}, "must be F32 with 4 elements",
          "SMALL"),
    route("both_renormalize", {"--renormalize", "--no-renormalize"}, "renormalize"),
    {"out_in_missing_directory", {"route", "TRACE", "--out", "MISSING_DIRECTORY"}, "cannot write"},
    {"out_is_a_directory", {"route", "TRACE", "--out", "DIRECTORY"}, "is a directory"},
    {"out_is_a_device", {"route", "TRACE", "--out", "/dev/null"}, "not a regular file"},
    run("ranks_zero", {"--ranks", "0"}, "--ranks is 0"),
    run("ranks_many", {"--ranks", "257"}, "--ranks is 257, must be in [1, 256]"),
    run("placement_for_one", {"--placement", "p.json"}, "--placement changes nothing"),
    run("placement_missing", {"--ranks", "2", "--placement", "/nonexistent"}, "cannot read"),
    run("ranks_on_cuda", {"--ranks", "2", "--backend", "cuda"}, "--backend is cuda"),
    run("hidden_zero", {"--hidden", "0"}, "--hidden is 0"),
    run("hidden_negative", {"--hidden", "-5"}, "--hidden is -5"),
    run("batch_zero", {"--batch", "0"}, "--batch is 0"),
    run("repeat_zero", {"--repeat", "0"}, "--repeat is 0"),
    run("dtype", {"--dtype", "f64"}, "--dtype is 'f64'"),
    run("report_in_missing_directory", {"--report", "MISSING_DIRECTORY"}, "cannot write"),
    run("report_is_a_directory", {"--report", "DIRECTORY"}, "is a directory"),
    run("report_with_bad_options", {"--report", "OUT", "--top-k", "0"}, "top_k is 0"),
};

INSTANTIATE_TEST_SUITE_P(CommandLines, CommandRefuses, ::testing::ValuesIn(kRefusals),
                         [](const auto& test) { return std::string(test.param.name); });

/// A trace whose contents are refused.
struct BadTrace {
  const char* name;
  std::string contents;
  std::string message;
};

void PrintTo(const BadTrace& bad, std::ostream* out) { *out << bad.name; }

class CommandRefusesTrace : public ::testing::TestWithParam<BadTrace> {};

TEST_P(CommandRefusesTrace, WithOneLineAndNoFile) {
  const TemporaryDirectory inputs;
  const TemporaryDirectory outputs;
  const std::string trace = inputs.write("trace", GetParam().contents);
  expect_refusal(run_command({"route", trace, "--out", outputs / "out"}), GetParam().message);
  expect_refusal(run_command({"run", trace, "--report", outputs / "out"}), GetParam().message);
  EXPECT_EQ(outputs.num_entries(), 0);
}

const BadTrace kBadTraces[] = {
    {"empty", "", "has 0 bytes"},
    {"truncated", small_trace().substr(0, small_trace().size() - 1), "ends at byte 60"},
    {"truncated_header", small_trace().substr(0, 20), "header length"},
    {"length_lies", bytes_of(std::vector<uint64_t>{1ull << 62}) + "{}", "header length"},
    {"not_json", tensor_file("{layers}"), "not valid JSON"},
    {"newline_in_a_name", tensor_file("{\"a\\nb\":1}"), "is not described by an object"},
    {"offsets_past_the_end",
     tensor_file("{" + entry("layers.0.router_logits", "F32", "[1,1]", 0, 4) + "}"),
     "ends at byte 4"},
    {"overlap",
     tensor_file("{" + entry("layers.0.router_logits", "F32", "[1,1]", 0, 4) + "," +
                     entry("layers.1.router_logits", "F32", "[1,1]", 0, 4) + "}",
                 "1234"),
     "overlaps"},
    {"shape_overflow",
     tensor_file("{" + entry("layers.0.router_logits", "F32", "[4294967296,4294967296]", 0, 0) +
                 "}"),
     "overflows"},
    {"unknown_dtype",
     tensor_file("{" + entry("layers.0.router_logits", "F99", "[1,1]", 0, 4) + "}", "1234"),
     "unknown dtype 'F99'"},
    {"no_top_k", small_trace(""), "does not say top_k"},
    {"bad_score", small_trace("\"top_k\":\"2\",\"score_function\":\"relu\""),
     "score_function is 'relu'"},
    {"bad_renormalize", small_trace("\"top_k\":\"2\",\"renormalize\":\"maybe\""),
     "renormalize is 'maybe'"},
    {"bad_scale", small_trace("\"top_k\":\"2\",\"routed_scaling_factor\":\"x\""),
     "routed_scaling_factor is 'x'"},
    {"top_k_above_experts", small_trace("\"top_k\":\"9\""), "top_k is 9"},
    {"too_many_experts",
     tensor_file("{\"__metadata__\":{\"top_k\":\"1\"}," +
                 entry("layers.0.router_logits", "F32", "[0,2049]", 0, 0) + "}"),
     "num_experts is 2049"},
};

INSTANTIATE_TEST_SUITE_P(Traces, CommandRefusesTrace, ::testing::ValuesIn(kBadTraces),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(RouteCommand, RefusesATraceWithoutLogits) {
  const TemporaryDirectory directory;
  const std::string trace =
      directory.write("t", tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                                           entry("layers.0.expert_ids", "I32", "[1,1]", 0, 4) + "}",
                                       std::string(4, '\0')));
  expect_refusal(run_command({"route", trace, "--out", directory / "o"}), "no router_logits");
  expect_refusal(run_command({"run", trace, "--top-k", "1"}), "--top-k changes nothing");
  EXPECT_EQ(directory.num_entries(), 1);
}

TEST(RouteCommand, RefusesAPresetWithABiasWhereTheTraceHasNone) {
  const TemporaryDirectory directory;
  const std::string trace = directory.write(
      "t", tensor_file("{" + entry("layers.0.router_logits", "F32", "[0,256]", 0, 0) + "}"));
  const std::string out = directory / "o";
  expect_refusal(run_command({"route", trace, "--out", out, "--model", "deepseek-v3"}),
                 "selects with a bias");
  expect_success(
      run_command({"route", trace, "--out", out, "--model", "deepseek-v3", "--bias", "none"}));
  expect_refusal(run_command({"route", trace, "--out", out, "--model", "minimax-m2"}),
                 "renormalize is not verified");
}

TEST(RouteCommand, ARefusalLeavesAnOlderResultAsItWas) {
  const TemporaryDirectory directory;
  const std::string out = directory.write("o", "older");
  expect_refusal(run_command({"route", kEnglish, "--out", out, "--top-k", "0"}), "top_k");
  EXPECT_EQ(read_whole(out), "older");
  EXPECT_EQ(directory.num_entries(), 1);
}

}  // namespace
}  // namespace switchyard
