// Sorting assignments, giving them to the copies of experts, and moving rows: T tokens, E experts,
// k slots, bf16 rows of H elements. Rows are held against the machine's own memcpy, call beside
// call.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/threads.h"
#include "switchyard/buffer.h"
#include "switchyard/permutation.h"
#include "switchyard/slot_assigner.h"

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

/// Arguments: tokens, experts, slots, threads. An eighth of the experts has a second copy.
void assign_slots(benchmark::State& state) {
  const auto num_experts = static_cast<int32_t>(state.range(1));
  const auto top_k = static_cast<int32_t>(state.range(2));
  const CpuThreads threads{.num_threads = static_cast<int>(state.range(3))};
  const Batch batch(state.range(0), num_experts, top_k, threads);
  std::vector<int32_t> experts(static_cast<size_t>(num_experts + num_experts / 8));
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    experts[slot] = static_cast<int32_t>(slot) % num_experts;
  }
  const auto placement = ExpertPlacement::from_slots(num_experts, 1, experts);
  const auto assign = [&](const SlotAssigner& assigner, Buffer<int32_t>& slots,
                          Buffer<int64_t>& counts, std::span<std::byte> workspace) {
    assigner.assign({batch.ids.data(), batch.num_tokens, top_k}, 0,
                    slots.matrix(batch.num_tokens, top_k), counts.view(), workspace);
  };
  const SlotAssigner assigner(placement, top_k, Backend::kCpu, threads);
  Buffer<int32_t> slots(batch.ids.size());
  Buffer<int32_t> expected(batch.ids.size());
  Buffer<int64_t> counts(placement.num_slots());
  Buffer<std::byte> workspace(assigner.workspace_bytes(batch.num_tokens));
  assign(SlotAssigner(placement, top_k, Backend::kReference), expected, counts, {});
  assign(assigner, slots, counts, workspace.bytes());
  if (!std::equal(slots.begin(), slots.end(), expected.begin())) {
    return state.SkipWithError("the slots are wrong");
  }
  for (auto _ : state) {
    assign(assigner, slots, counts, workspace.bytes());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * slots.size());
}

void assign_presets(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "E", "k", "threads"})->UseRealTime();
  for (const int64_t tokens : {1, 512, 16384}) {
    for (const int threads : {1, 2}) bench->Args({tokens, 256, 8, threads});
  }
}
BENCHMARK(assign_slots)->Apply(assign_presets);

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

  /// Times `move`, and beside every call a memcpy of as many bytes as the larger side has, on as
  /// many threads: what else the machine is doing then slows both.
  template <typename Move>
  void time(benchmark::State& state, const Move& move) {
    using Clock = std::chrono::steady_clock;
    const int64_t bytes = sorted.size() * 2;
    Buffer<std::byte> copy(bytes);
    const auto* from = reinterpret_cast<const std::byte*>(sorted.data());
    const cpu::ThreadTeam team({.num_threads = num_threads});
    std::chrono::duration<double> moving{};
    std::chrono::duration<double> copying{};
    for (auto _ : state) {
      const auto start = Clock::now();
      move();
      benchmark::ClobberMemory();
      const auto moved = Clock::now();
      team.run(bytes, num_threads, 1, [&](int64_t begin, int64_t end, int) {
        std::memcpy(copy.data() + begin, from + begin, static_cast<size_t>(end - begin));
      });
      benchmark::ClobberMemory();
      copying += Clock::now() - moved;
      moving += moved - start;
      state.SetIterationTime(std::chrono::duration<double>(moved - start).count());
    }
    state.SetBytesProcessed(state.iterations() * bytes);
    const double copied = static_cast<double>(state.iterations() * bytes);
    state.counters["memcpy_gbps"] = copied / copying.count() / 1e9;
    state.counters["share_of_memcpy"] = copying / moving;
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
  rows.time(state, [&] { rows.permute(); });
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
  rows.time(state, [&] { rows.unpermute(); });
}

void row_presets(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "H", "threads"})->UseManualTime();
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
