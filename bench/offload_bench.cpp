// Memory-aware decisions of one token on one core: selection with a bonus for residents, affinity,
// residency and paging requests. The library beside plain C++, and its parts by themselves. With
// --table it prints Markdown, medians of interleaved repetitions.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "bench/median_table.h"
#include "bench/plain_decision.h"
#include "switchyard/expert_affinity.h"
#include "switchyard/memory_aware_router.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kTokens = 1024;  // of the stream, which then begins anew
constexpr float kBonus = 0.25f;
constexpr double kDecay = 0.97;

struct Shape {
  int32_t num_experts;
  int32_t top_k;
  int32_t fast_slots;

  [[nodiscard]] std::string name() const {
    return std::to_string(num_experts) + ":" + std::to_string(top_k) + " in " +
           std::to_string(fast_slots);
  }
};
constexpr Shape kShapes[] = {{8, 2, 4}, {64, 8, 32}, {256, 8, 128}};

/// Logits that drift from token to token around each expert's mean, as routers' do.
std::vector<float> drifting_logits(int32_t num_experts) {
  constexpr float kStays = 0.9f;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  const auto experts = static_cast<size_t>(num_experts);
  std::vector<float> means(experts);
  std::vector<float> drift(experts);
  for (float& mean : means) mean = normal(random);
  for (float& value : drift) value = normal(random);
  std::vector<float> logits;
  for (int64_t token = 0; token < kTokens; ++token) {
    for (size_t expert = 0; expert < experts; ++expert) {
      drift[expert] = kStays * drift[expert] + std::sqrt(1 - kStays * kStays) * normal(random);
      logits.push_back(means[expert] + drift[expert]);
    }
  }
  return logits;
}

/// The stream, token after token.
class Stream {
 public:
  explicit Stream(const Shape& shape)
      : num_experts_(shape.num_experts), logits_(drifting_logits(shape.num_experts)) {}

  const float* next() {
    const float* const row = logits_.data() + token_ * num_experts_;
    token_ = token_ + 1 == kTokens ? 0 : token_ + 1;
    return row;
  }

 private:
  int64_t num_experts_;
  std::vector<float> logits_;
  int64_t token_ = 0;
};

class LibraryDecisions {
 public:
  LibraryDecisions(const Shape& shape, const ResidencyPreference& preference,
                   bool measure_latency = false)
      : num_experts_(shape.num_experts),
        router_(
            {.routing = {.num_experts = shape.num_experts, .top_k = shape.top_k},
             .cache = {.memory = {.num_experts = shape.num_experts, .fast_slots = shape.fast_slots},
                       .decay = kDecay,
                       .measure_latency = measure_latency},
             .preference = preference}),
        ids_(static_cast<size_t>(shape.top_k)),
        weights_(ids_.size()),
        requests_(static_cast<size_t>(router_.max_requests(1))),
        workspace_(static_cast<size_t>(router_.router().workspace_bytes(1))) {
    const auto top_k = static_cast<int64_t>(ids_.size());
    inputs_.logits = MatrixView<const float>(nullptr, 1, num_experts_);
    result_.expert_ids = {ids_.data(), 1, top_k};
    result_.gate_weights = MatrixView<float>(weights_.data(), 1, top_k);
  }

  int64_t decide(const float* logits) {
    inputs_.logits.data = logits;
    return router_.route(0, inputs_, result_,
                         {requests_.data(), static_cast<int64_t>(requests_.size())}, workspace_);
  }
  [[nodiscard]] const std::vector<int32_t>& ids() const { return ids_; }
  [[nodiscard]] const std::vector<PagingRequest>& requests() const { return requests_; }
  [[nodiscard]] const MemoryMetrics& metrics() const { return router_.cache().metrics(); }

 private:
  int64_t num_experts_;
  MemoryAwareRouter router_;
  std::vector<int32_t> ids_;
  std::vector<float> weights_;
  std::vector<PagingRequest> requests_;
  std::vector<std::byte> workspace_;
  RoutingInputs inputs_;
  RoutingResult result_;
};

/// Both choose the same experts and ask for the same moves; the order within a token may differ,
/// since the library puts residents that took another's place last.
bool agree(const Shape& shape) {
  Stream stream(shape);
  LibraryDecisions library(shape, additive_preference({}, kBonus));
  PlainDecisions plain(shape.num_experts, shape.top_k, shape.fast_slots, kBonus, kDecay);
  const auto before = [](const PagingRequest& a, const PagingRequest& b) {
    return std::pair(a.direction, a.expert) < std::pair(b.direction, b.expert);
  };
  for (int64_t token = 0; token < 3 * kTokens; ++token) {
    const float* const logits = stream.next();
    PlainDecisions::Decision expected = plain.decide(logits);
    std::vector<PagingRequest> requests = library.requests();
    requests.resize(static_cast<size_t>(library.decide(logits)));
    std::copy_n(library.requests().begin(), requests.size(), requests.begin());
    std::vector<int32_t> ids = library.ids();
    std::sort(ids.begin(), ids.end());
    std::sort(expected.expert_ids.begin(), expected.expert_ids.end());
    std::sort(requests.begin(), requests.end(), before);
    std::sort(expected.requests.begin(), expected.requests.end(), before);
    if (ids != expected.expert_ids || requests != expected.requests) return false;
  }
  return library.metrics().hits == plain.hits() && library.metrics().misses == plain.misses();
}

void tell_misses(benchmark::State& state, int64_t misses) {
  state.counters["misses"] =
      benchmark::Counter(static_cast<double>(misses), benchmark::Counter::kAvgIterations);
}

void time_library(benchmark::State& state, const Shape& shape, ResidencyPreference preference,
                  bool measure_latency) {
  if (!agree(shape)) return state.SkipWithError("the library and plain C++ disagree");
  Stream stream(shape);
  LibraryDecisions library(shape, preference, measure_latency);
  for (int64_t token = 0; token < kTokens; ++token) library.decide(stream.next());
  const int64_t misses = library.metrics().misses;
  for (auto _ : state) {
    benchmark::DoNotOptimize(library.decide(stream.next()));
    benchmark::ClobberMemory();
  }
  tell_misses(state, library.metrics().misses - misses);
}

void time_plain(benchmark::State& state, const Shape& shape) {
  Stream stream(shape);
  PlainDecisions plain(shape.num_experts, shape.top_k, shape.fast_slots, kBonus, kDecay);
  for (int64_t token = 0; token < kTokens; ++token) plain.decide(stream.next());
  const int64_t misses = plain.misses();
  for (auto _ : state) {
    benchmark::DoNotOptimize(plain.decide(stream.next()));
    benchmark::ClobberMemory();
  }
  tell_misses(state, plain.misses() - misses);
}

/// Only the choice, without a preference.
void time_selection(benchmark::State& state, const Shape& shape) {
  Stream stream(shape);
  const Router router({.num_experts = shape.num_experts, .top_k = shape.top_k}, Backend::kCpu,
                      {.num_threads = 1});
  std::vector<int32_t> ids(static_cast<size_t>(shape.top_k));
  std::vector<float> weights(ids.size());
  RoutingResult result;
  result.expert_ids = {ids.data(), 1, shape.top_k};
  result.gate_weights = MatrixView<float>(weights.data(), 1, shape.top_k);
  for (auto _ : state) {
    router.route({.logits = MatrixView<const float>(stream.next(), 1, shape.num_experts)}, result);
    benchmark::ClobberMemory();
  }
}

/// All but the choice: the experts of the stream, chosen beforehand.
void time_serving(benchmark::State& state, const Shape& shape) {
  Stream stream(shape);
  LibraryDecisions library(shape, {});
  std::vector<int32_t> ids;
  for (int64_t token = 0; token < kTokens; ++token) {
    library.decide(stream.next());
    ids.insert(ids.end(), library.ids().begin(), library.ids().end());
  }
  ExpertCache cache({.memory = {.num_experts = shape.num_experts, .fast_slots = shape.fast_slots},
                     .decay = kDecay});
  std::vector<PagingRequest> requests(static_cast<size_t>(cache.max_requests(1, shape.top_k)));
  int64_t token = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        cache.serve_token(0, {ids.data() + token * shape.top_k, shape.top_k},
                          {requests.data(), static_cast<int64_t>(requests.size())}));
    token = token + 1 == kTokens ? 0 : token + 1;
  }
}

/// A decay of every score at the end of every token, as ExpertAffinity does, which threads share;
/// the cache lets the increment grow instead.
void time_dense_affinity(benchmark::State& state, const Shape& shape) {
  ExpertAffinity affinity({.num_experts = shape.num_experts, .decay = static_cast<float>(kDecay)},
                          Backend::kCpu);
  std::vector<int32_t> ids;
  std::mt19937 random(5);
  for (int64_t i = 0; i < kTokens * shape.top_k; ++i) {
    ids.push_back(static_cast<int32_t>(random() % static_cast<uint32_t>(shape.num_experts)));
  }
  int64_t token = 0;
  for (auto _ : state) {
    affinity.record({ids.data() + token * shape.top_k, 1, shape.top_k});
    affinity.update();
    benchmark::ClobberMemory();
    token = token + 1 == kTokens ? 0 : token + 1;
  }
}

void register_all() {
  for (const Shape& shape : kShapes) {
    const auto add = [&](const char* what, const auto& time) {
      benchmark::RegisterBenchmark((shape.name() + "/" + what).c_str(),
                                   [=](benchmark::State& state) { time(state); });
    };
    add("library", [shape](benchmark::State& state) {
      time_library(state, shape, additive_preference({}, kBonus), false);
    });
    add("bounded",
        [shape](benchmark::State& state) { time_library(state, shape, {.bonus = kBonus}, false); });
    add("timed", [shape](benchmark::State& state) {
      time_library(state, shape, additive_preference({}, kBonus), true);
    });
    add("plain", [shape](benchmark::State& state) { time_plain(state, shape); });
    add("selection", [shape](benchmark::State& state) { time_selection(state, shape); });
    add("dense", [shape](benchmark::State& state) { time_dense_affinity(state, shape); });
    add("serving", [shape](benchmark::State& state) { time_serving(state, shape); });
  }
}

void print_table(const MedianReporter& medians) {
  std::puts(
      "ns a token on one core, the whole memory-aware decision; its parts by themselves.\n\n"
      "| E:k in slots | decision | plain C++ | times faster | bounded | timed | choice alone | "
      "rest alone | dense affinity |\n|---|---|---|---|---|---|---|---|---|");
  for (const Shape& shape : kShapes) {
    const auto at = [&](const char* what) {
      return medians.nanoseconds(shape.name() + "/" + what);
    };
    std::printf("| %s | %.0f | %.0f | %.1f | %.0f | %.0f | %.0f | %.0f | %.0f |\n",
                shape.name().c_str(), at("library"), at("plain"), at("plain") / at("library"),
                at("bounded"), at("timed"), at("selection"), at("serving"), at("dense"));
  }
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  using namespace switchyard::bench;
  register_all();
  return run_or_tabulate(argc, argv, 9,
                         [](const MedianReporter& medians) { print_table(medians); });
}
