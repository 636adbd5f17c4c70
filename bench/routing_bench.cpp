// Routing on the CPU: the library beside plain C++, over models, batch sizes, instruction sets,
// threads and unusual inputs. With --table it prints Markdown, medians of interleaved repetitions.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <memory>
#include <string>

#include "bench/median_table.h"
#include "bench/plain_routing.h"
#include "bench/plain_sums.h"
#include "bench/routing_batch.h"
#include "hwy/targets.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kBatchSizes[] = {1, 16, 512, 16384};
constexpr int64_t kCached = 512;  // tokens of a batch that stays in the cache

std::string key(const RoutingCase& routing_case, int64_t num_tokens, DataType dtype,
                const std::string& what) {
  return routing_case.name + "/T:" + std::to_string(num_tokens) + "/" + name_of(dtype) + "/" + what;
}

void report(benchmark::State& state, const RoutingBatch& batch) {
  state.SetItemsProcessed(state.iterations() * batch.num_tokens());
  state.SetBytesProcessed(state.iterations() * batch.bytes());
}

// `target_mask` holds the instruction sets to do without.
void time_library(benchmark::State& state, const RoutingCase& routing_case, int64_t num_tokens,
                  DataType dtype, Logits kind, int num_threads, int64_t target_mask) {
  RoutingBatch batch(routing_case, num_tokens, dtype, kind);
  hwy::DisableTargets(target_mask);
  const Router router(batch.config(), Backend::kCpu, {num_threads, nullptr});
  hwy::DisableTargets(0);
  router.route(batch.inputs(), batch.result());
  try {
    batch.check_outputs();
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
    return;
  }
  // As a server does: the views are kept, and only the rows are others.
  RoutingInputs inputs = batch.inputs();
  const RoutingResult result = batch.result();
  for (auto _ : state) {
    inputs.logits.data = batch.logits().data;
    router.route(inputs, result);
    benchmark::ClobberMemory();
    batch.advance();
  }
  report(state, batch);
}

void time_plain(benchmark::State& state, const RoutingCase& routing_case, int64_t num_tokens,
                DataType dtype) {
  RoutingBatch batch(routing_case, num_tokens, dtype);
  for (auto _ : state) {
    plain_route(batch.config(), batch.logits(), batch.bias(), batch.expert_ids(),
                batch.gate_weights());
    benchmark::ClobberMemory();
    batch.advance();
  }
  report(state, batch);
}

// Reads the logits and does nothing else: the limit that memory sets.
void time_reading(benchmark::State& state, const RoutingCase& routing_case, int64_t num_tokens,
                  DataType dtype) {
  RoutingBatch batch(routing_case, num_tokens, dtype);
  for (auto _ : state) {
    const ConstTensorView logits = batch.logits();
    benchmark::DoNotOptimize(
        xor_of_words(logits.data, logits.rows * logits.cols * size_of(logits.dtype) / 4));
    batch.advance();
  }
  report(state, batch);
}

void time_denominators(benchmark::State& state, float (*sum)(const float*, int64_t)) {
  RoutingBatch batch(softmax_case(256, 8), kCached, DataType::kFloat32);
  for (auto _ : state) {
    const auto logits = batch.logits().as<float>();
    for (int64_t t = 0; t < logits.rows; ++t) {
      benchmark::DoNotOptimize(sum(logits.row(t), logits.cols));
    }
    batch.advance();
  }
  state.SetItemsProcessed(state.iterations() * kCached);
}

void add_library(const RoutingCase& c, int64_t num_tokens, DataType dtype,
                 const std::string& what = "library", Logits kind = Logits::kNormal,
                 int num_threads = 1, int64_t target_mask = 0) {
  benchmark::RegisterBenchmark(key(c, num_tokens, dtype, what).c_str(), [=](benchmark::State&
                                                                                state) {
    time_library(state, c, num_tokens, dtype, kind, num_threads, target_mask);
  })->UseRealTime();
}

void add_beside_plain(const RoutingCase& c, int64_t num_tokens, DataType dtype) {
  add_library(c, num_tokens, dtype);
  benchmark::RegisterBenchmark(
      key(c, num_tokens, dtype, "plain").c_str(),
      [=](benchmark::State& state) { time_plain(state, c, num_tokens, dtype); })
      ->UseRealTime();
  benchmark::RegisterBenchmark(
      key(c, num_tokens, dtype, "reading").c_str(),
      [=](benchmark::State& state) { time_reading(state, c, num_tokens, dtype); })
      ->UseRealTime();
}

const std::vector<RoutingCase>& softmax_cases() {
  static const std::vector<RoutingCase> kCases = {
      softmax_case(8, 2),         softmax_case(16, 2),        softmax_case(60, 4),
      softmax_case(64, 1),        softmax_case(64, 8),        softmax_case(128, 1),
      softmax_case(128, 8),       softmax_case(256, 8),       softmax_case(512, 10),
      softmax_case(8, 2, false),  softmax_case(64, 6, false), softmax_case(128, 8, false),
      softmax_case(256, 8, false)};
  return kCases;
}

const std::vector<RoutingCase>& spot_cases() {
  static const std::vector<RoutingCase> kCases = {softmax_case(8, 2), softmax_case(64, 8),
                                                  softmax_case(128, 8), softmax_case(256, 8)};
  return kCases;
}

constexpr int64_t kBelowAvx2 = HWY_ARCH_X86 ? HWY_AVX2 - 1 : 0;

void register_all() {
  for (const RoutingCase& c : softmax_cases()) {
    for (const DataType dtype : {DataType::kFloat32, DataType::kBFloat16}) {
      for (const int64_t num_tokens : kBatchSizes) add_beside_plain(c, num_tokens, dtype);
    }
    add_library(c, kCached, DataType::kFloat32, "avx2", Logits::kNormal, 1, kBelowAvx2);
  }
  for (const RoutingCase& c : preset_cases()) {
    for (const int64_t num_tokens : kBatchSizes)
      add_beside_plain(c, num_tokens, DataType::kFloat32);
  }
  for (const RoutingCase& c : spot_cases()) {
    add_library(c, kCached, DataType::kFloat32, "all-equal", Logits::kAllEqual);
    add_library(c, kCached, DataType::kFloat32, "all-denormal", Logits::kAllDenormal);
    add_library(c, kCached, DataType::kFloat32, "all-NaN", Logits::kAllNan);
    add_library(c, 4096, DataType::kFloat32, "1-thread", Logits::kNormal, 1);
    add_library(c, 4096, DataType::kFloat32, "2-threads", Logits::kNormal, 2);
  }
  benchmark::RegisterBenchmark("denominator/contract", [](benchmark::State& state) {
    time_denominators(state, contract_denominator);
  });
  benchmark::RegisterBenchmark("denominator/free", [](benchmark::State& state) {
    time_denominators(state, free_denominator);
  });
}

class Tables {
 public:
  explicit Tables(const MedianReporter& medians) : medians_(medians) {}

  void print() const {
    std::puts(
        "ns a token on one core; in brackets how many times faster than plain C++ in the "
        "same run, then the share of the time that reading the logits takes.\n");
    std::puts("### Softmax\n");
    for (const DataType dtype : {DataType::kFloat32, DataType::kBFloat16}) {
      header(std::string("E:k, ") + name_of(dtype));
      for (const RoutingCase& c : softmax_cases()) row(c, dtype);
      std::puts("");
    }
    std::puts("### Models, F32\n");
    header("model");
    for (const RoutingCase& c : preset_cases()) row(c, DataType::kFloat32);
    std::puts(
        "\n### AVX2 alone, T = 512, F32\n\n| E:k | ns a token | times plain |\n|---|---|---|");
    for (const RoutingCase& c : softmax_cases()) {
      const double ours = at(c, kCached, DataType::kFloat32, "avx2");
      std::printf("| %s | %.1f | %.1f |\n", c.name.c_str(), ours / double{kCached},
                  at(c, kCached, DataType::kFloat32, "plain") / ours);
    }
    std::puts(
        "\n### Unusual inputs, T = 512, F32: times the usual time\n\n"
        "| E:k | all equal | all denormal | all NaN | two threads, T = 4096: times faster |\n"
        "|---|---|---|---|---|");
    for (const RoutingCase& c : spot_cases()) {
      const double usual = at(c, kCached, DataType::kFloat32, "library");
      const auto share = [&](const char* what) {
        return at(c, kCached, DataType::kFloat32, what) / usual;
      };
      std::printf("| %s | %.1f | %.1f | %.1f | %.2f |\n", c.name.c_str(), share("all-equal"),
                  share("all-denormal"), share("all-NaN"),
                  at(c, 4096, DataType::kFloat32, "1-thread") /
                      at(c, 4096, DataType::kFloat32, "2-threads"));
    }
    const double contract = medians_.nanoseconds("denominator/contract") / double{kCached};
    const double chosen_freely = medians_.nanoseconds("denominator/free") / double{kCached};
    std::printf(
        "\n### What exact bits cost\n\nThe denominator of a row of 256, both vectorised by "
        "the compiler: %.1f ns with the contract's exponential and tree, %.1f ns with a "
        "free choice (degree 5, any order).\n",
        contract, chosen_freely);
  }

 private:
  [[nodiscard]] double at(const RoutingCase& c, int64_t num_tokens, DataType dtype,
                          const std::string& what) const {
    return medians_.nanoseconds(key(c, num_tokens, dtype, what));
  }

  static void header(const std::string& first) {
    std::printf("| %s |", first.c_str());
    for (const int64_t num_tokens : kBatchSizes) std::printf(" T = %ld |", long(num_tokens));
    std::puts("\n|---|---|---|---|---|");
  }

  void row(const RoutingCase& c, DataType dtype) const {
    std::printf("| %s |", c.name.c_str());
    for (const int64_t num_tokens : kBatchSizes) {
      const double ours = at(c, num_tokens, dtype, "library");
      std::printf(" %.1f (%.1f) %.0f %% |", ours / static_cast<double>(num_tokens),
                  at(c, num_tokens, dtype, "plain") / ours,
                  100.0 * at(c, num_tokens, dtype, "reading") / ours);
    }
    std::puts("");
  }

  const MedianReporter& medians_;
};

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  using namespace switchyard::bench;
  register_all();
  return run_or_tabulate(argc, argv, 5,
                         [](const MedianReporter& medians) { Tables(medians).print(); });
}
