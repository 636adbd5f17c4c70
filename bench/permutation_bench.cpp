// Sorting assignments and moving rows: T tokens, E experts, k slots, bf16 rows of H elements.
// Rows are held against the machine's own memcpy, measured in the same program.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/threads.h"
#include "switchyard/buffer.h"
#include "switchyard/permutation.h"

namespace switchyard {
namespace {

/// A random batch, its permutation and the memory for both.
struct Batch {
  Batch(int64_t tokens, int32_t num_experts, int32_t top_k, CpuThreads threads)
      : num_tokens(tokens),
        permuter({.num_experts = num_experts, .top_k = top_k}, Backend::kCpu, threads),
        ids(tokens * top_k),
        weights(tokens * top_k),
        tokens_per_expert(num_experts),
        expert_offsets(num_experts + 1),
        row_to_assignment(permuter.sizes(tokens).num_rows),
        assignment_to_row(tokens * top_k),
        block_experts(permuter.sizes(tokens).num_blocks),
        totals(1),
        workspace(permuter.workspace_bytes(tokens)) {
    std::mt19937 random(7);
    std::vector<int32_t> experts(static_cast<size_t>(num_experts));
    std::iota(experts.begin(), experts.end(), 0);
    for (int64_t token = 0; token < tokens; ++token) {
      for (int32_t slot = 0; slot < top_k; ++slot) {
        std::uniform_int_distribution<size_t> left(static_cast<size_t>(slot), experts.size() - 1);
        std::swap(experts[static_cast<size_t>(slot)], experts[left(random)]);
        ids[token * top_k + slot] = experts[static_cast<size_t>(slot)];
        weights[token * top_k + slot] = 1.0f / static_cast<float>(slot + 1);
      }
    }
  }

  [[nodiscard]] int64_t num_rows() const { return row_to_assignment.size(); }
  [[nodiscard]] int32_t top_k() const { return permuter.config().top_k; }
  Permutation view() {
    return {tokens_per_expert.view(), expert_offsets.view(),
            row_to_assignment.view(), assignment_to_row.matrix(num_tokens, top_k()),
            block_experts.view(),     totals.data()};
  }
  void sort() {
    permuter.sort(MatrixView<const int32_t>(ids.data(), num_tokens, top_k()), {}, view(),
                  workspace.bytes());
  }

  int64_t num_tokens;
  Permuter permuter;
  Buffer<int32_t> ids;
  Buffer<float> weights;
  Buffer<int64_t> tokens_per_expert;
  Buffer<int64_t> expert_offsets;
  Buffer<int64_t> row_to_assignment;
  Buffer<int64_t> assignment_to_row;
  Buffer<int32_t> block_experts;
  Buffer<PermutationTotals> totals;
  Buffer<std::byte> workspace;
};

/// The plain way: sort the assignments' numbers by expert, then count and invert.
void plain_sort(Batch& batch) {
  const int64_t count = batch.ids.size();
  int64_t* rows = batch.row_to_assignment.data();
  std::iota(rows, rows + count, int64_t{0});
  std::stable_sort(rows, rows + count,
                   [&](int64_t a, int64_t b) { return batch.ids[a] < batch.ids[b]; });
  std::fill(batch.tokens_per_expert.begin(), batch.tokens_per_expert.end(), 0);
  for (int64_t row = 0; row < count; ++row) {
    ++batch.tokens_per_expert[batch.ids[rows[row]]];
    batch.assignment_to_row[rows[row]] = row;
    batch.block_experts[row] = batch.ids[rows[row]];
  }
  batch.expert_offsets[0] = 0;
  std::partial_sum(batch.tokens_per_expert.begin(), batch.tokens_per_expert.end(),
                   batch.expert_offsets.begin() + 1);
}

bool same_sort(Batch& a, Batch& b) {
  return std::equal(a.row_to_assignment.begin(), a.row_to_assignment.end(),
                    b.row_to_assignment.begin()) &&
         std::equal(a.assignment_to_row.begin(), a.assignment_to_row.end(),
                    b.assignment_to_row.begin()) &&
         std::equal(a.expert_offsets.begin(), a.expert_offsets.end(), b.expert_offsets.begin()) &&
         std::equal(a.block_experts.begin(), a.block_experts.end(), b.block_experts.begin());
}

/// Arguments: tokens, experts, slots, threads; 0 threads: the plain way.
void sort_assignments(benchmark::State& state) {
  const auto num_experts = static_cast<int32_t>(state.range(1));
  const auto top_k = static_cast<int32_t>(state.range(2));
  const auto num_threads = static_cast<int>(state.range(3));
  Batch batch(state.range(0), num_experts, top_k, {.num_threads = std::max(1, num_threads)});
  Batch plain(state.range(0), num_experts, top_k, {.num_threads = 1});
  batch.sort();
  plain_sort(plain);
  if (!same_sort(batch, plain)) return state.SkipWithError("the sorts disagree");
  for (auto _ : state) {
    if (num_threads == 0) {
      plain_sort(plain);
    } else {
      batch.sort();
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * batch.ids.size());
}

void sort_presets(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "E", "k", "threads"})->UseRealTime();
  for (const auto& [num_experts, top_k] : {std::pair{8, 2}, {64, 8}, {128, 8}, {256, 8}}) {
    for (const int64_t tokens : {1, 16, 512, 16384}) {
      for (const int threads : {0, 1, 2}) bench->Args({tokens, num_experts, top_k, threads});
    }
  }
}
BENCHMARK(sort_assignments)->Apply(sort_presets);

/// Bytes a second that memcpy copies from one array to another of `bytes` each, on `num_threads`.
double memcpy_bandwidth(int64_t bytes, int num_threads) {
  Buffer<std::byte> from(bytes);
  Buffer<std::byte> to(bytes);
  std::fill(from.begin(), from.end(), std::byte{1});
  const cpu::ThreadTeam team({.num_threads = num_threads});
  double best = INFINITY;
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    team.run(bytes, num_threads, 1, [&](int64_t begin, int64_t end, int) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    });
    benchmark::ClobberMemory();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count());
  }
  return static_cast<double>(bytes) / best;
}

/// Rows of a batch before and after. Arguments: tokens, hidden size, threads; 8 of 64 experts.
struct Rows {
  explicit Rows(const benchmark::State& state)
      : hidden_size(state.range(1)),
        num_threads(static_cast<int>(state.range(2))),
        batch(state.range(0), 64, 8, {.num_threads = num_threads}),
        tokens(batch.num_tokens * hidden_size),
        sorted(batch.num_rows() * hidden_size) {
    std::mt19937 random(11);
    for (BFloat16& element : tokens) {
      element = to_bfloat16(static_cast<float>(random() % 512) / 256.0f - 1.0f);
    }
    batch.sort();
  }

  MatrixView<const std::byte> token_bytes() {
    return {reinterpret_cast<const std::byte*>(tokens.data()), batch.num_tokens, hidden_size * 2};
  }
  MatrixView<std::byte> sorted_bytes() {
    return {reinterpret_cast<std::byte*>(sorted.data()), batch.num_rows(), hidden_size * 2};
  }
  void permute() { batch.permuter.permute(batch.view(), token_bytes(), sorted_bytes()); }
  void unpermute() {
    batch.permuter.unpermute(batch.view(), sorted.matrix(batch.num_rows(), hidden_size),
                             batch.weights.matrix(batch.num_tokens, batch.top_k()),
                             tokens.matrix(batch.num_tokens, hidden_size));
  }
  [[nodiscard]] bool permuted_rightly() const {
    for (int64_t row = 0; row < batch.num_rows(); ++row) {
      const int64_t token = batch.row_to_assignment[row] / batch.top_k();
      if (std::memcmp(sorted.data() + row * hidden_size, tokens.data() + token * hidden_size,
                      static_cast<size_t>(hidden_size * 2)) != 0) {
        return false;
      }
    }
    return true;
  }

  /// Bytes that a copy of the larger side would read and write; the share of memcpy counts these.
  void report(benchmark::State& state) {
    const int64_t bytes = batch.num_rows() * hidden_size * 2;
    state.SetBytesProcessed(state.iterations() * bytes);
    const double bandwidth = memcpy_bandwidth(bytes, num_threads);
    state.counters["memcpy_bytes_per_second"] = bandwidth;
    state.counters["share_of_memcpy"] = benchmark::Counter(
        static_cast<double>(state.iterations() * bytes) / bandwidth, benchmark::Counter::kIsRate);
  }

  int64_t hidden_size;
  int num_threads;
  Batch batch;
  Buffer<BFloat16> tokens;
  Buffer<BFloat16> sorted;
};

void permute_rows(benchmark::State& state) {
  Rows rows(state);
  rows.permute();
  if (!rows.permuted_rightly()) return state.SkipWithError("rows went astray");
  for (auto _ : state) {
    rows.permute();
    benchmark::ClobberMemory();
  }
  rows.report(state);
}

void unpermute_rows(benchmark::State& state) {
  Rows rows(state);
  rows.permute();
  const BFloat16 first = rows.tokens[0];
  rows.unpermute();
  float expected = 0.0f;
  for (int64_t slot = 0; slot < rows.batch.top_k(); ++slot) {
    expected = std::fma(rows.batch.weights[slot], widen(first), expected);
  }
  if (rows.tokens[0].bits != to_bfloat16(expected).bits) {
    return state.SkipWithError("the sum is wrong");
  }
  for (auto _ : state) {
    rows.unpermute();
    benchmark::ClobberMemory();
  }
  rows.report(state);
}

void row_presets(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "H", "threads"})->UseRealTime();
  for (const int64_t hidden_size : {2048, 7168}) {
    for (const int64_t tokens : {1, 16, 512, 4096}) {
      for (const int threads : {1, 2}) bench->Args({tokens, hidden_size, threads});
    }
  }
}
BENCHMARK(permute_rows)->Apply(row_presets);
BENCHMARK(unpermute_rows)->Apply(row_presets);

}  // namespace
}  // namespace switchyard

BENCHMARK_MAIN();
