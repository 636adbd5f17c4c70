#include "bench/gpu_rows.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>

#include "bench/gpu_floors.h"
#include "switchyard/buffer.h"
#include "tests/simt/device_array.h"

namespace switchyard::bench {
namespace {

using test::DeviceArray;
using test::require_success;

/// Random rows. Drawing them all would take longer than the measurement, so they repeat, at a
/// length that is a multiple of no row's.
std::vector<BFloat16> random_rows(int64_t elements) {
  constexpr int64_t kDrawn = 1000003;
  std::mt19937 engine(11);
  std::normal_distribution<float> normal;
  std::vector<BFloat16> rows(static_cast<size_t>(elements));
  const auto drawn = std::min(elements, kDrawn);
  for (int64_t i = 0; i < drawn; ++i) rows[static_cast<size_t>(i)] = to_bfloat16(normal(engine));
  for (int64_t i = drawn; i < elements; ++i) {
    rows[static_cast<size_t>(i)] = rows[static_cast<size_t>(i - drawn)];
  }
  return rows;
}

struct Set {
  Set(int64_t tokens, int64_t sorted_rows, int64_t hidden_size)
      : rows(static_cast<size_t>(tokens * hidden_size)),
        sorted(static_cast<size_t>(sorted_rows * hidden_size)),
        combined(rows.size()) {}

  DeviceArray<BFloat16> rows;
  DeviceArray<BFloat16> sorted;
  DeviceArray<BFloat16> combined;
};

}  // namespace

struct GpuRows::State {
  State(const GpuBatches& routed, int64_t size)
      : batches(routed), hidden_size(size), permutation(routed.permutation()) {}

  [[nodiscard]] int64_t num_tokens() const { return permutation.assignment_to_row.rows; }
  [[nodiscard]] int64_t num_sorted() const { return permutation.row_to_assignment.size; }
  [[nodiscard]] int32_t top_k() const { return batches.router().permuter().config().top_k; }
  [[nodiscard]] const Set& set(int copy) const {
    return *sets[static_cast<size_t>(copy) % sets.size()];
  }

  const GpuBatches& batches;
  int64_t hidden_size;
  Permutation permutation;
  std::vector<BFloat16> host;
  std::vector<std::unique_ptr<Set>> sets;
};

int64_t GpuRows::bytes(int64_t num_tokens, int32_t top_k, int64_t hidden_size) {
  return num_tokens * (top_k + 1) * hidden_size * static_cast<int64_t>(sizeof(BFloat16));
}

GpuRows::GpuRows(const GpuBatches& batches, int64_t hidden_size, int64_t cache_bytes, int max_sets)
    : state_(std::make_unique<State>(batches, hidden_size)) {
  State& state = *state_;
  state.host = random_rows(state.num_tokens() * hidden_size);
  const int64_t size = bytes(state.num_tokens(), state.top_k(), hidden_size);
  const int64_t wanted = std::clamp<int64_t>(cache_bytes / size + 1, 1, max_sets);
  while (static_cast<int64_t>(state.sets.size()) < wanted) {
    state.sets.push_back(
        std::make_unique<Set>(state.num_tokens(), state.num_sorted(), hidden_size));
    state.sets.back()->rows.upload(state.host);
  }
}

GpuRows::~GpuRows() = default;

std::vector<TimedCall> GpuRows::calls() const {
  const State& state = *state_;
  const Permuter& permuter = state.batches.router().permuter();
  const int64_t row_bytes = state.hidden_size * static_cast<int64_t>(sizeof(BFloat16));
  const int64_t moved = bytes(state.num_tokens(), state.top_k(), state.hidden_size);
  // Half of it is read and half written; the sorted rows have room for that where k is 2 or more.
  const int64_t half = std::min(moved / 2, state.num_sorted() * row_bytes / 2) / 16 * 16;
  return {
      {"permute", moved,
       [&state, &permuter, row_bytes](int copy, StreamView stream) {
         const Set& set = state.set(copy);
         permuter.permute(
             state.permutation,
             {reinterpret_cast<const std::byte*>(set.rows.data()), state.num_tokens(), row_bytes},
             {reinterpret_cast<std::byte*>(set.sorted.data()), state.num_sorted(), row_bytes},
             stream);
       }},
      {"unpermute", moved,
       [&state, &permuter](int copy, StreamView stream) {
         const Set& set = state.set(copy);
         permuter.unpermute(
             state.permutation,
             MatrixView<const BFloat16>(set.sorted.data(), state.num_sorted(), state.hidden_size),
             state.batches.gate_weights(),
             MatrixView<BFloat16>(set.combined.data(), state.num_tokens(), state.hidden_size),
             stream);
       }},
      {"copy", 2 * half, [&state, half](int copy, StreamView stream) {
         auto* const memory = reinterpret_cast<std::byte*>(state.set(copy).sorted.data());
         enqueue_copy(memory, memory + half, half, stream);
       }}};
}

void GpuRows::check() const {
  const State& state = *state_;
  const std::vector<TimedCall> all = calls();
  for (size_t i = 0; i < state.sets.size(); ++i) {
    all[0].enqueue(static_cast<int>(i), {});
    all[1].enqueue(static_cast<int>(i), {});
  }
  require_success(cudaDeviceSynchronize());
  // The first tokens alone give the same bits.
  const int64_t tokens = std::min<int64_t>(state.num_tokens(), 64);
  const auto columns = static_cast<size_t>(state.hidden_size);
  const Permuter cpu(state.batches.router().permuter().config(), Backend::kCpu);
  const int32_t top_k = state.top_k();
  const PermutationSizes sizes = cpu.sizes(tokens);
  Buffer<int64_t> tokens_per_expert(cpu.config().num_local());
  Buffer<int64_t> expert_offsets(cpu.config().num_local() + 1);
  Buffer<int64_t> row_to_assignment(sizes.num_rows);
  Buffer<int64_t> assignment_to_row(tokens * top_k);
  Buffer<int32_t> block_experts(sizes.num_blocks);
  Buffer<PermutationTotals> totals(1);
  Buffer<std::byte> workspace(cpu.workspace_bytes(tokens));
  const Permutation sorted{tokens_per_expert.view(), expert_offsets.view(),
                           row_to_assignment.view(), assignment_to_row.matrix(tokens, top_k),
                           block_experts.view(),     totals.data()};
  const MatrixView<const float> weights(state.batches.host_gate_weights().data(), tokens, top_k);
  cpu.sort({state.batches.expert_ids().data(), tokens, top_k}, weights, sorted, workspace.bytes());
  Buffer<BFloat16> rows(sizes.num_rows * state.hidden_size);
  Buffer<BFloat16> combined(tokens * state.hidden_size);
  const int64_t row_bytes = state.hidden_size * static_cast<int64_t>(sizeof(BFloat16));
  cpu.permute(sorted, {reinterpret_cast<const std::byte*>(state.host.data()), tokens, row_bytes},
              {reinterpret_cast<std::byte*>(rows.data()), sizes.num_rows, row_bytes});
  cpu.unpermute(sorted, MatrixView<const BFloat16>(rows.matrix(sizes.num_rows, state.hidden_size)),
                weights, combined.matrix(tokens, state.hidden_size));
  std::vector<BFloat16> actual(static_cast<size_t>(tokens) * columns);
  require_success(cudaMemcpy(actual.data(), state.set(0).combined.data(),
                             actual.size() * sizeof(BFloat16), cudaMemcpyDeviceToHost));
  if (std::memcmp(actual.data(), combined.data(), actual.size() * sizeof(BFloat16)) != 0) {
    throw std::runtime_error("permuted and combined rows differ from the CPU's");
  }
}

}  // namespace switchyard::bench
