// Time to plan an exchange: one rank's part of it, and the whole from above.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "bench/moe_choices.h"
#include "switchyard/buffer.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/global_plan.h"

namespace switchyard::bench {
namespace {

/// A rank whose peers all say what it says, at once: what is left is this rank's own work.
class EchoCommunicator final : public Communicator {
 public:
  explicit EchoCommunicator(int size) : Communicator(size / 2, size, Backend::kCpu, {}) {}

  [[nodiscard]] const char* transport() const override { return "echo"; }
  [[nodiscard]] bool shares_memory() const override { return true; }

 protected:
  void do_all_gather(const char*, std::span<const std::byte> mine,
                     std::span<std::byte> all) override {
    for (std::size_t at = 0; at < all.size(); at += mine.size()) {
      std::memcpy(all.data() + at, mine.data(), mine.size());
    }
  }
  void do_start(const char*, const SentRows&, const ReceivedRows&, StreamView) override {}
  void do_finish(const char*, const SentRows&, const ReceivedRows&, StreamView) override {}
  void do_abort(const std::string&) noexcept override {}
};

constexpr int32_t kExperts = 256;
constexpr int32_t kTopK = 8;

ExpertPlacement placement(int32_t num_ranks, bool with_copies) {
  if (!with_copies) return ExpertPlacement::contiguous(kExperts, num_ranks);
  // A slot more a rank, for copies of the first experts.
  const int32_t per_rank = kExperts / num_ranks + 1;
  std::vector<int32_t> slots;
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    for (int32_t i = 0; i + 1 < per_rank; ++i) slots.push_back(rank * (per_rank - 1) + i);
    slots.push_back(rank);
  }
  return ExpertPlacement::from_slots(kExperts, num_ranks, slots);
}

void plan_one_rank(benchmark::State& state) {
  const auto num_tokens = state.range(0);
  const auto num_ranks = static_cast<int32_t>(state.range(1));
  const bool with_copies = state.range(2) != 0;
  EchoCommunicator communicator(num_ranks);
  ExpertExchange exchange(
      {.placement = placement(num_ranks, with_copies), .top_k = kTopK, .max_tokens = num_tokens},
      communicator, {.num_threads = static_cast<int>(state.range(3))});
  AllToAllPlan plan = exchange.make_plan();
  Buffer<std::byte> workspace(exchange.plan_workspace_bytes());
  const std::vector<int32_t> ids = MoeChoices({}).tokens(0, num_tokens);
  for (auto _ : state) {
    exchange.plan({ids.data(), num_tokens, kTopK}, plan, workspace.bytes());
    benchmark::DoNotOptimize(plan.num_expert_rows());
  }
  const AllToAllCounts counts = plan.combine_counts();
  if (counts.recv_offsets[num_ranks] != num_tokens * kTopK) throw std::logic_error("rows are lost");
  state.SetItemsProcessed(state.iterations() * num_tokens * kTopK);
}
BENCHMARK(plan_one_rank)
    ->ArgNames({"T", "R", "copies", "threads"})
    ->ArgsProduct({{128, 4096}, {8, 64}, {0, 1}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

void plan_all_ranks(benchmark::State& state) {
  const auto num_ranks = static_cast<int32_t>(state.range(0));
  const auto num_tokens = state.range(1) * num_ranks;
  const auto where = ExpertPlacement::contiguous(kExperts, num_ranks);
  const std::vector<int32_t> ids = MoeChoices({}).tokens(0, num_tokens);
  for (auto _ : state) {
    const GlobalPlan plan = plan_globally(where, {ids.data(), num_tokens, kTopK});
    benchmark::DoNotOptimize(summarize_traffic(plan.send_counts).rows_moved);
  }
  state.SetItemsProcessed(state.iterations() * num_tokens * kTopK);
}
BENCHMARK(plan_all_ranks)
    ->ArgNames({"R", "T"})
    ->ArgsProduct({{64, 4096}, {16}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace switchyard::bench

BENCHMARK_MAIN();
