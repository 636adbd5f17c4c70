// The hot path takes no memory from the heap. A program of its own, since it counts every new.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "switchyard/buffer.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/permutation.h"
#include "switchyard/slot_assigner.h"
#include "tests/backend_variants.h"
#include "tests/permutation_case.h"
#include "tests/rank_threads.h"

namespace {

std::atomic<int64_t> num_allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
  ++num_allocations;
  const std::size_t rounded = (size + alignment) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new[](std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace switchyard::test {
namespace {

class PermutationAllocation : public testing::TestWithParam<DropPolicy> {};

TEST_P(PermutationAllocation, Contract7_HotPathTakesNoHeapMemory) {
  constexpr int64_t kHidden = 64;
  ThreadPool pool(3);
  for (const CpuThreads& threads :
       {CpuThreads{1, nullptr}, CpuThreads{2, nullptr}, CpuThreads{3, &pool}}) {
    for (const int64_t num_tokens : {1, 60000}) {
      RandomStream random(9);
      const PermutationConfig config{
          .num_experts = 16,
          .top_k = 2,
          .block_rows = 8,
          .capacity = {
              .mode = ExpertCapacity::Mode::kFactor, .factor = 1.0, .drop_policy = GetParam()}};
      const auto batch = random_case(config, num_tokens, 0, DataType::kFloat32, random);
      const Permuter permuter(config, Backend::kCpu, threads);
      GuardedPermutation out(permuter, batch);
      const Permutation view = out.view();
      const std::vector<float> tokens(static_cast<size_t>(num_tokens * kHidden), 1.0f);
      const auto bytes = std::as_bytes(std::span(tokens));
      Guarded<float> sorted(permuter.sizes(num_tokens).num_rows, kHidden, kHidden);
      Guarded<float> combined(num_tokens, kHidden, kHidden);
      const MatrixView<float> rows = sorted.matrix();
      std::vector<int64_t> offsets(static_cast<size_t>(num_tokens * config.top_k));
      for (size_t i = 0; i < offsets.size(); ++i) {
        offsets[i] = static_cast<int64_t>(i) * kHidden * 4;
      }
      std::vector<std::byte> memory(offsets.size() * kHidden * 4);
      const RowAddresses to({offsets.data(), num_tokens, config.top_k}, memory.data());
      const RowAddresses from({offsets.data(), num_tokens, config.top_k},
                              static_cast<const std::byte*>(memory.data()));

      const int64_t before = num_allocations;
      permuter.sort(batch.expert_ids(), batch.gate_weights(), view, out.workspace());
      permuter.permute(view, {bytes.data(), num_tokens, kHidden * 4},
                       {reinterpret_cast<std::byte*>(rows.data), rows.rows, kHidden * 4});
      permuter.unpermute(view, rows, batch.gate_weights(), combined.matrix());
      permuter.permute_to({bytes.data(), num_tokens, kHidden * 4}, to.view());
      permuter.unpermute_from(from.view(), DataType::kFloat32, batch.gate_weights(),
                              combined.matrix());
      EXPECT_EQ(num_allocations - before, 0) << num_tokens << " tokens";
    }
  }
}

TEST(SlotAssignerAllocation, Contract7_HotPathTakesNoHeapMemory) {
  constexpr int64_t kTokens = 60000;
  ThreadPool pool(3);
  const std::vector<int32_t> experts{0, 1, 1, 0, 0, 2};
  for (const CpuThreads& threads :
       {CpuThreads{1, nullptr}, CpuThreads{2, nullptr}, CpuThreads{3, &pool}}) {
    for (const auto& placement :
         {ExpertPlacement::from_slots(3, 2, experts), ExpertPlacement::contiguous(3, 2)}) {
      const SlotAssigner assigner(placement, 2, Backend::kCpu, threads);
      const std::vector<int32_t> ids(kTokens * 2, 1);
      std::vector<int32_t> slots(ids.size());
      std::vector<int64_t> counts(static_cast<size_t>(placement.num_slots()));
      std::vector<std::byte> workspace(static_cast<size_t>(assigner.workspace_bytes(kTokens)));
      const int64_t before = num_allocations;
      assigner.assign({ids.data(), kTokens, 2}, 0, {slots.data(), kTokens, 2},
                      {counts.data(), placement.num_slots()}, workspace);
      EXPECT_EQ(num_allocations - before, 0);
    }
  }
}

/// After a batch as large, an exchange by threads allocates nothing, whatever the ids are.
TEST(ExchangeAllocation, Contract7_HotPathTakesNoHeapMemory) {
  constexpr int64_t kTokens = 500;
  const std::vector<int32_t> experts{0, 1, 1, 0, 0, 2};
  for (const bool deduplicates : {false, true}) {
    const auto errors = run_in_process(2, [&](Communicator& communicator) {
      ExpertExchange exchange({.placement = ExpertPlacement::from_slots(3, 2, experts),
                               .top_k = 2,
                               .max_tokens = kTokens,
                               .deduplicate = deduplicates},
                              communicator, {.num_threads = 1});
      AllToAllPlan plan = exchange.make_plan();
      Buffer<std::byte> workspace(exchange.plan_workspace_bytes());
      std::vector<int32_t> ids(kTokens * 2, 1);
      std::vector<float> tokens(kTokens * 4, 1.0f);
      Buffer<float> rows(2 * 2 * kTokens * 4);
      Buffer<std::byte> memory;
      int64_t before = 0;
      for (int batch = 0; batch < 4; ++batch) {
        std::fill(ids.begin(), ids.end(), batch % 3);
        exchange.plan({ids.data(), kTokens, 2}, plan, workspace.bytes());
        if (batch == 0) {
          memory = Buffer<std::byte>(exchange.dispatch_workspace_bytes(plan, 16) +
                                     exchange.combine_workspace_bytes(plan, 4, DataType::kFloat32));
        }
        exchange.start_dispatch(plan,
                                {{reinterpret_cast<const std::byte*>(tokens.data()), kTokens, 16},
                                 {reinterpret_cast<std::byte*>(rows.data()), 2 * 2 * kTokens, 16}},
                                {}, memory.bytes());
        exchange.finish_dispatch();
        exchange.start_combine(plan,
                               {std::as_const(rows).matrix(2 * 2 * kTokens, 4),
                                {},
                                MatrixView<float>(tokens.data(), kTokens, 4)},
                               memory.bytes());
        exchange.finish_combine();
        communicator.barrier("test");
        if (batch == 1) before = num_allocations;
        communicator.barrier("test");
      }
      EXPECT_EQ(num_allocations - before, 0);
      communicator.barrier("test");
    });
    EXPECT_EQ(errors, no_errors(2));
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, PermutationAllocation,
                         testing::Values(DropPolicy::kPosition, DropPolicy::kWeight));

}  // namespace
}  // namespace switchyard::test
