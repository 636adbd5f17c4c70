// Expert affinity on the host: a dense decay at the end of every batch against a lazy one when a
// score is touched, and recording from many threads against a mutex. E experts, T tokens, 8 slots.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "switchyard/affinity_score.h"
#include "switchyard/expert_affinity.h"

namespace switchyard {
namespace {

constexpr int64_t kSlots = 8;
constexpr int64_t kTop = 8;

/// Some random batches, since the same one over and over is learnt by the branch predictor.
class Batches {
 public:
  Batches(int32_t num_experts, int64_t num_tokens) : num_tokens_(num_tokens) {
    std::mt19937 random(3);
    for (auto& batch : ids_) {
      batch.resize(static_cast<size_t>(num_tokens * kSlots));
      for (int32_t& id : batch) {
        id = static_cast<int32_t>(random() % static_cast<uint32_t>(num_experts));
      }
    }
  }
  MatrixView<const int32_t> next() {
    return {ids_[turn_++ % ids_.size()].data(), num_tokens_, kSlots};
  }

 private:
  int64_t num_tokens_;
  std::array<std::vector<int32_t>, 64> ids_;
  size_t turn_ = 0;
};

/// Each score with the number of the batch that it was last decayed for, in one word; whoever
/// touches it makes up for the batches since. The end of a batch is then one addition, while each
/// assignment and each reader pay. Its bits are not the library's: powers of the decay round
/// otherwise than batch after batch. Stamps last for 2^32 batches.
class LazyAffinity {
 public:
  explicit LazyAffinity(const ExpertAffinityConfig& config)
      : config_(config),
        rule_(make_affinity_rule(config.decay, config.activation_boost, config.max_score)),
        words_(static_cast<size_t>(config.num_experts)),
        activations_(words_.size()) {
    powers_[0] = rule_.decay;
    for (size_t i = 1; i < powers_.size(); ++i) {
      const uint64_t power = powers_[i - 1];
      powers_[i] = power > kMaxAffinityUnits ? power : power * power >> 32;
    }
  }

  void record(MatrixView<const int32_t> expert_ids) {
    const uint32_t now = batch_.load(std::memory_order_relaxed) + 1;
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
        const int32_t id = expert_ids.row(token)[slot];
        if (id < 0 || id >= config_.num_experts) continue;
        const auto expert = static_cast<size_t>(id);
        const std::atomic_ref<uint64_t> word(words_[expert]);
        uint64_t before = word.load(std::memory_order_relaxed);
        uint64_t after = 0;
        do {
          const uint64_t sum = decayed(before, now) + rule_.boost;
          after = std::min<uint64_t>(sum, kMaxAffinityUnits) | uint64_t{now} << 32;
        } while (!word.compare_exchange_weak(before, after, std::memory_order_relaxed));
        std::atomic_ref<int64_t>(activations_[expert]).fetch_add(1, std::memory_order_relaxed);
      }
    }
  }
  void update() { batch_.fetch_add(1, std::memory_order_relaxed); }

  void top_k(VectorView<int32_t> experts) {
    std::array<uint64_t, kMaxAffinityExperts> keys;
    for (size_t expert = 0; expert < words_.size(); ++expert) {
      keys[expert] = units(expert) << 32 | ~static_cast<uint32_t>(expert);
    }
    const auto end = keys.begin() + static_cast<std::ptrdiff_t>(words_.size());
    std::partial_sort(keys.begin(), keys.begin() + experts.size, end, std::greater<>());
    for (int64_t i = 0; i < experts.size; ++i) {
      experts[i] = static_cast<int32_t>(~static_cast<uint32_t>(keys[static_cast<size_t>(i)]));
    }
  }
  uint64_t units(size_t expert) {
    return decayed(std::atomic_ref<uint64_t>(words_[expert]).load(std::memory_order_relaxed),
                   batch_.load(std::memory_order_relaxed));
  }

 private:
  [[nodiscard]] uint64_t decayed(uint64_t word, uint32_t now) const {
    uint64_t units = word & kMaxAffinityUnits;
    for (uint32_t left = now - static_cast<uint32_t>(word >> 32); left != 0 && units != 0;
         left &= left - 1) {
      units = units * powers_[static_cast<size_t>(std::countr_zero(left))] >> 32;
    }
    return units;
  }

  ExpertAffinityConfig config_;
  AffinityRule rule_;
  std::vector<uint64_t> words_;
  std::vector<int64_t> activations_;
  std::array<uint64_t, 32> powers_{};  ///< of the decay, to 1, 2, 4, …
  std::atomic<uint32_t> batch_{0};
};

ExpertAffinityConfig config_for(int64_t num_experts) {
  return {.num_experts = static_cast<int32_t>(num_experts), .activation_boost = 0.125f};
}

bool agree(const ExpertAffinityConfig& config, int64_t num_tokens) {
  ExpertAffinity dense(config, Backend::kCpu);
  LazyAffinity lazy(config);
  Batches batches(config.num_experts, num_tokens);
  for (int i = 0; i < 100; ++i) {
    const MatrixView<const int32_t> ids = batches.next();
    dense.record(ids);
    dense.update();
    lazy.record(ids);
    lazy.update();
  }
  for (int32_t expert = 0; expert < config.num_experts; ++expert) {
    const auto difference = static_cast<int64_t>(dense.units()[expert]) -
                            static_cast<int64_t>(lazy.units(static_cast<size_t>(expert)));
    if (std::abs(difference) > 200) return false;  // units of 2^-32
  }
  return true;
}

/// Arguments: experts, tokens, whether the scores are read, whether they are lazy.
void batch_recorded_and_ended(benchmark::State& state) {
  const ExpertAffinityConfig config = config_for(state.range(0));
  if (!agree(config, state.range(1))) return state.SkipWithError("the forms disagree");
  ExpertAffinity dense(config, Backend::kCpu);
  LazyAffinity lazy(config);
  Batches batches(config.num_experts, state.range(1));
  std::array<int32_t, kTop> top{};
  const auto run = [&](auto& affinity) {
    for (auto _ : state) {
      affinity.record(batches.next());
      affinity.update();
      if (state.range(2) != 0) affinity.top_k({top.data(), kTop});
      benchmark::ClobberMemory();
    }
  };
  if (state.range(3) == 0) {
    run(dense);
  } else {
    run(lazy);
  }
}

void batch_presets(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"E", "T", "read", "lazy"});
  for (const int64_t experts : {64, 256, 2048}) {
    for (const int64_t tokens : {1, 16, 512}) {
      for (const int64_t read : {0, 1}) {
        for (const int64_t lazy : {0, 1}) bench->Args({experts, tokens, read, lazy});
      }
    }
  }
}
BENCHMARK(batch_recorded_and_ended)->Apply(batch_presets);

/// Arguments: experts. The end of a batch from a router's counts.
void batch_ended_by_counts(benchmark::State& state) {
  const ExpertAffinityConfig config = config_for(state.range(0));
  ExpertAffinity affinity(config, Backend::kCpu);
  std::vector<int64_t> counts(static_cast<size_t>(config.num_experts));
  for (size_t i = 0; i < counts.size(); i += 3) counts[i] = 1;
  for (auto _ : state) {
    affinity.update({counts.data(), config.num_experts});
    benchmark::ClobberMemory();
  }
  std::vector<int64_t> sums(counts.size());
  affinity.activations({sums.data(), config.num_experts});
  if (sums.front() != state.iterations()) state.SkipWithError("batches were lost");
}
BENCHMARK(batch_ended_by_counts)->ArgName("E")->Arg(64)->Arg(256)->Arg(2048);

/// How threads that record at once keep out of each other's way: the library's way, an atomic
/// addition for every assignment, or plain additions under a mutex.
enum class Sharing : int64_t { kLibrary, kAtomics, kMutex };

/// What the threads of a benchmark share; the first of them makes it and checks it.
struct Shared {
  explicit Shared(const ExpertAffinityConfig& config)
      : affinity(config, Backend::kCpu), counts(static_cast<size_t>(config.num_experts)) {}

  void record(Sharing sharing, MatrixView<const int32_t> ids) {
    if (sharing == Sharing::kLibrary) return affinity.record(ids);
    std::unique_lock lock(mutex, std::defer_lock);
    if (sharing == Sharing::kMutex) lock.lock();
    for (int64_t token = 0; token < ids.rows; ++token) {
      for (int64_t slot = 0; slot < ids.cols; ++slot) {
        const int32_t id = ids.row(token)[slot];
        if (id < 0 || id >= static_cast<int32_t>(counts.size())) continue;
        int64_t& count = counts[static_cast<size_t>(id)];
        if (sharing == Sharing::kMutex) {
          ++count;
        } else {
          std::atomic_ref<int64_t>(count).fetch_add(1, std::memory_order_relaxed);
        }
      }
    }
  }
  /// Of all that was recorded, however.
  int64_t sum() {
    affinity.update();
    std::vector<int64_t> sums(counts.size());
    affinity.activations({sums.data(), static_cast<int64_t>(sums.size())});
    int64_t total = 0;
    for (const int64_t count : sums) total += count;
    for (const int64_t count : counts) total += count;
    return total;
  }

  ExpertAffinity affinity;
  std::mutex mutex;
  std::vector<int64_t> counts;
};

/// Arguments: experts, tokens, how the threads share.
void threads_recording(benchmark::State& state) {
  static std::unique_ptr<Shared> shared;
  const ExpertAffinityConfig config = config_for(state.range(0));
  const auto sharing = static_cast<Sharing>(state.range(2));
  if (state.thread_index() == 0) shared = std::make_unique<Shared>(config);
  Batches batches(config.num_experts, state.range(1));
  for (auto _ : state) {  // starts and ends when all threads do
    shared->record(sharing, batches.next());
  }
  constexpr const char* kLabels[] = {"library", "atomics", "mutex"};
  state.SetLabel(kLabels[static_cast<size_t>(sharing)]);
  const int64_t assignments = state.range(1) * kSlots;
  state.SetItemsProcessed(state.iterations() * assignments);
  if (state.thread_index() == 0 &&
      shared->sum() != state.iterations() * assignments * state.threads()) {
    state.SkipWithError("assignments were lost");
  }
}

void thread_presets(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"E", "T", "sharing"})->UseRealTime();
  for (const int64_t tokens : {1, 64}) {
    for (const Sharing sharing : {Sharing::kLibrary, Sharing::kAtomics, Sharing::kMutex}) {
      bench->Args({128, tokens, static_cast<int64_t>(sharing)});
    }
  }
  for (const int threads : {1, 2, 4, 8, 16}) bench->Threads(threads);
}
BENCHMARK(threads_recording)->Apply(thread_presets);

}  // namespace
}  // namespace switchyard

BENCHMARK_MAIN();
