// What only the device's slot assignment has: launches, streams, graphs, memory that kernels cannot
// follow. That its bits are the reference's is for the suite that every backend passes.
#include "switchyard/slot_assigner.h"

#include <gtest/gtest.h>

#include <functional>

#include "cuda/slot_assignment.h"
#include "switchyard/errors.h"
#include "tests/random_stream.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

constexpr int32_t kTopK = 6;
constexpr int32_t kExperts = 40;
constexpr int32_t kRank = 3;

/// Expert e has 1 + e mod 3 copies; every ninth slot is empty.
ExpertPlacement placement() {
  std::vector<int32_t> slots;
  for (int32_t copy = 0; copy < 3; ++copy) {
    for (int32_t expert = 0; expert < kExperts; ++expert) {
      if (slots.size() % 9 == 0) slots.push_back(-1);
      if (copy <= expert % 3) slots.push_back(expert);
    }
  }
  while (slots.size() % 4 != 0) slots.push_back(-1);
  return ExpertPlacement::from_slots(kExperts, 4, slots);
}

std::vector<int32_t> ids_of(int64_t num_tokens, uint64_t seed) {
  RandomStream random(seed);
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens * kTopK));
  for (int32_t& id : ids) id = static_cast<int32_t>(random.below(kExperts + 1)) - 1;
  return ids;
}

/// A batch in device memory.
struct DeviceBatch {
  DeviceBatch(const SlotAssigner& assigner, int64_t tokens)
      : num_tokens(tokens),
        expert_ids(static_cast<size_t>(tokens * kTopK)),
        slot_ids(expert_ids.size()),
        counts(static_cast<size_t>(assigner.placement().num_slots())),
        workspace(static_cast<size_t>(assigner.workspace_bytes(tokens))) {}

  void assign(const SlotAssigner& assigner, StreamView stream = {}) const {
    assigner.assign({expert_ids.data(), num_tokens, kTopK}, kRank,
                    {slot_ids.data(), num_tokens, kTopK},
                    {counts.data(), static_cast<int64_t>(counts.size())},
                    {workspace.data(), workspace.size()}, stream);
  }
  /// Compares with what the reference makes of these ids.
  void expect_assigned(const std::vector<int32_t>& ids) const {
    std::vector<int32_t> slots(ids.size());
    std::vector<int64_t> expected(counts.size());
    SlotAssigner(placement(), kTopK, Backend::kReference)
        .assign({ids.data(), num_tokens, kTopK}, kRank, {slots.data(), num_tokens, kTopK},
                {expected.data(), static_cast<int64_t>(expected.size())}, {});
    EXPECT_EQ(slot_ids.download(), slots);
    EXPECT_EQ(counts.download(), expected);
  }

  int64_t num_tokens;
  DeviceArray<int32_t> expert_ids;
  DeviceArray<int32_t> slot_ids;
  DeviceArray<int64_t> counts;
  DeviceArray<std::byte> workspace;
};

SlotAssigner device_assigner() { return {placement(), kTopK, Backend::kCuda}; }

TEST(CudaSlotAssignment, Contract7_AGraphAssignsWhatIsThereWhenItRuns) {
  const SlotAssigner assigner = device_assigner();
  for (const int64_t num_tokens : {5, 3000}) {
    DeviceBatch batch(assigner, num_tokens);
    const int64_t allocations = simt::num_device_allocations();
    const CapturedGraph graph([&](cudaStream_t stream) { batch.assign(assigner, stream); });
    EXPECT_EQ(simt::num_device_allocations(), allocations);
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const std::vector<int32_t> ids = ids_of(num_tokens, seed);
      batch.expert_ids.upload(ids);
      graph.replay();
      batch.expect_assigned(ids);
    }
  }
}

TEST(CudaSlotAssignment, StreamsDoNotDisturbEachOther) {
  const SlotAssigner assigner = device_assigner();
  for (const simt::StreamOrder order : {simt::StreamOrder::kDeferred, simt::StreamOrder::kRandom}) {
    const simt::ScopedSettings scope;
    simt::settings().stream_order = order;
    DeviceBatch first(assigner, 1500);
    DeviceBatch second(assigner, 90);
    const std::vector<int32_t> first_ids = ids_of(1500, 1);
    const std::vector<int32_t> second_ids = ids_of(90, 2);
    first.expert_ids.upload(first_ids);
    second.expert_ids.upload(second_ids);
    const Stream streams[2];
    for (int round = 0; round < 3; ++round) {
      first.assign(assigner, streams[0].handle);
      second.assign(assigner, streams[1].handle);
    }
    require_success(cudaDeviceSynchronize());
    first.expect_assigned(first_ids);
    second.expect_assigned(second_ids);
  }
}

/// One more than sorting takes.
TEST(CudaSlotAssignment, LaunchesAreFew) {
  const SlotAssigner assigner = device_assigner();
  const auto launches = [&](int64_t num_tokens) {
    DeviceBatch batch(assigner, num_tokens);
    const std::vector<int32_t> ids = ids_of(num_tokens, 1);
    if (num_tokens > 0) batch.expert_ids.upload(ids);
    const int64_t before = simt::statistics().launches;
    batch.assign(assigner);
    const int64_t count = simt::statistics().launches - before;
    if (num_tokens > 0) batch.expect_assigned(ids);
    return count;
  };
  EXPECT_EQ(launches(0), 2);
  EXPECT_EQ(launches(1), 2);
  EXPECT_EQ(launches(1000), 2);
  EXPECT_EQ(launches(3000), 4);
}

/// Before compute capability 9.0 a grid cannot start beside the one before.
TEST(CudaSlotAssignment, DevicesWithoutDependentLaunchesAssignToo) {
  const simt::ScopedSettings scope;
  simt::settings().compute_capability = 80;
  const SlotAssigner assigner = device_assigner();
  DeviceBatch batch(assigner, 2000);
  const std::vector<int32_t> ids = ids_of(2000, 1);
  batch.expert_ids.upload(ids);
  batch.assign(assigner);
  batch.expect_assigned(ids);
}

TEST(CudaSlotAssignment, Contract10_MemoryThatKernelsCannotFollowIsRefused) {
  const SlotAssigner assigner = device_assigner();
  const DeviceBatch batch(assigner, 20);
  struct Call {
    MatrixView<const int32_t> expert_ids;
    MatrixView<int32_t> slot_ids;
    VectorView<int64_t> counts;
    std::span<std::byte> workspace;
  };
  const auto refusal = [&](const std::function<void(Call&)>& change) {
    Call call{{batch.expert_ids.data(), 20, kTopK},
              {batch.slot_ids.data(), 20, kTopK},
              {batch.counts.data(), static_cast<int64_t>(batch.counts.size())},
              {batch.workspace.data(), batch.workspace.size()}};
    change(call);
    const int64_t before = simt::statistics().launches;
    std::string text = "accepted";
    try {
      assigner.assign(call.expert_ids, kRank, call.slot_ids, call.counts, call.workspace);
    } catch (const InvalidArgument& error) {
      text = error.what();
    }
    EXPECT_EQ(simt::statistics().launches, before);
    return text;
  };
  const std::string said = " is host memory, must be memory of device 0";
  std::vector<int32_t> ids(20 * kTopK);
  std::vector<int64_t> counts(batch.counts.size());
  std::vector<std::byte> workspace(batch.workspace.size());
  EXPECT_EQ(refusal([&](Call& call) { call.expert_ids.data = ids.data(); }), "expert_ids" + said);
  EXPECT_EQ(refusal([&](Call& call) { call.slot_ids.data = ids.data(); }), "slot_ids" + said);
  EXPECT_EQ(refusal([&](Call& call) { call.counts.data = counts.data(); }),
            "tokens_per_slot" + said);
  EXPECT_EQ(refusal([&](Call& call) { call.workspace = workspace; }), "workspace" + said);
  const DeviceArray<std::byte> larger(batch.workspace.size() + 8);
  EXPECT_EQ(refusal([&](Call& call) {
              call.workspace = std::span(larger.data(), larger.size()).subspan(8);
            }),
            "workspace is not aligned to 16 bytes");
}

TEST(CudaSlotAssignment, NeedsADevice) {
  const simt::ScopedSettings scope;
  simt::settings().num_devices = 0;
  EXPECT_THROW(cuda::make_cuda_slot_assigner(placement(), kTopK), Unavailable);
}

}  // namespace
}  // namespace switchyard::test
