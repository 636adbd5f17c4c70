// What only the device's affinity has: streams, graphs, ids that nobody can refuse, memory that
// kernels cannot follow. That its bits are the reference's is for the conformance tests, which run
// on it too.
#include "switchyard/expert_affinity.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "cuda/expert_affinity.h"
#include "switchyard/errors.h"
#include "switchyard/router.h"
#include "tests/expert_affinity_case.h"
#include "tests/simt/address_sanitizer.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

constexpr ExpertAffinityConfig kConfig{.num_experts = 150, .activation_boost = 0.01f};

void expect_same(const ExpertAffinity& affinity, const ExpertAffinity& reference) {
  EXPECT_EQ(units_of(affinity), units_of(reference));
  EXPECT_EQ(activations_of(affinity), activations_of(reference));
}

int64_t launches_of(const std::function<void()>& call) {
  const int64_t before = simt::statistics().launches;
  call();
  return simt::statistics().launches - before;
}

TEST(CudaAffinity, Contract7_AGraphCountsWhatIsThereWhenItRuns) {
  ExpertAffinity affinity(kConfig, Backend::kCuda);
  ExpertAffinity reference(kConfig, Backend::kReference);
  RandomStream random(1);
  DeviceArray<int32_t> ids(400 * 4);
  DeviceArray<int64_t> counts(150);
  const int64_t allocations = simt::num_device_allocations();
  const CapturedGraph graph([&](cudaStream_t stream) {
    affinity.record({ids.data(), 400, 4}, stream);
    affinity.update({counts.data(), 150}, stream);
  });
  for (int round = 0; round < 3; ++round) {
    const AffinityBatch batch(150, 400, 4, 0, random);
    ids.upload({batch.ids.begin(), batch.ids.end()});
    std::vector<int64_t> given(150);
    for (int64_t& count : given) count = random.below(5);
    counts.upload(given);
    graph.replay();
    reference.record(batch.view());
    reference.update({given.data(), 150});
    expect_same(affinity, reference);
  }
  EXPECT_EQ(simt::num_device_allocations(), allocations);
}

TEST(CudaAffinity, FollowsARouterInItsStream) {
  const simt::ScopedSettings scope;
  simt::settings().stream_order = simt::StreamOrder::kDeferred;
  const RouterConfig routing{.num_experts = 24, .top_k = 3, .num_shared_experts = 2};
  const Router router(routing, Backend::kCuda);
  ExpertAffinity by_counts({.num_experts = 24}, Backend::kCuda);
  ExpertAffinity by_ids({.num_experts = 24}, Backend::kCuda);
  RandomStream random(4);
  std::vector<float> values(90 * 24);
  for (float& value : values) value = static_cast<float>(random.normal());
  const DeviceArray<float> logits(values);
  const DeviceArray<int32_t> ids(90 * 5);
  const DeviceArray<float> weights(90 * 5);
  const DeviceArray<int64_t> counts(26);
  RoutingResult result;
  result.expert_ids = {ids.data(), 90, 5};
  result.gate_weights = MatrixView<float>(weights.data(), 90, 5);
  result.tokens_per_expert = {counts.data(), 26};
  const Stream stream;
  router.route({.logits = MatrixView<const float>(logits.data(), 90, 24)}, result, {},
               stream.handle);
  by_counts.update(result.tokens_per_expert, stream.handle);
  by_ids.record({ids.data(), 90, 3, 5}, stream.handle);
  by_ids.update(stream.handle);
  require_success(cudaStreamSynchronize(stream.handle));
  ExpertAffinity expected({.num_experts = 24}, Backend::kReference);
  const std::vector<int64_t> downloaded = counts.download();
  expected.update({downloaded.data(), 26});
  expect_same(by_counts, expected);
  expect_same(by_ids, expected);
}

TEST(CudaAffinity, StreamsRecordBesideEachOther) {
  for (const simt::StreamOrder order : {simt::StreamOrder::kDeferred, simt::StreamOrder::kRandom}) {
    const simt::ScopedSettings scope;
    simt::settings().stream_order = order;
    ExpertAffinity affinity(kConfig, Backend::kCuda);
    ExpertAffinity reference(kConfig, Backend::kReference);
    RandomStream random(2);
    const AffinityBatch first(150, 300, 3, 2, random);
    const AffinityBatch second(150, 70, 8, 0, random);
    const Stream streams[2];
    for (int round = 0; round < 3; ++round) {
      affinity.record(first.view(), streams[0].handle);
      affinity.record(second.view(), streams[1].handle);
      require_success(cudaDeviceSynchronize());
      affinity.update(streams[round % 2].handle);
      require_success(cudaDeviceSynchronize());
      reference.record(first.view());
      reference.record(second.view());
      reference.update();
    }
    expect_same(affinity, reference);
  }
}

TEST(CudaAffinity, LaunchesAreFew) {
  ExpertAffinity affinity(kConfig, Backend::kCuda);
  RandomStream random(3);
  for (const int64_t num_tokens : {1, 8, 2000}) {
    const AffinityBatch batch(150, num_tokens, 8, 0, random);
    const BackendVector<int64_t> counts = batch.counts(150);
    EXPECT_EQ(launches_of([&] { affinity.record(batch.view()); }), 1);
    EXPECT_EQ(launches_of([&] { affinity.update(view_of(counts)); }), 1);
  }
  EXPECT_EQ(launches_of([&] { affinity.record({}); }), 0);
  EXPECT_EQ(launches_of([&] { affinity.update(); }), 1);
  EXPECT_EQ(launches_of([&] { affinity.reset(); }), 1);
}

/// More than one block, of which the last has fewer tokens; and more columns than threads.
TEST(CudaAffinity, BlocksShareABatch) {
  RandomStream random(6);
  for (const auto& [num_tokens, slots] :
       {std::pair<int64_t, int64_t>{5000, 2}, {4097, 1}, {7, 1500}, {60000, 2}}) {
    ExpertAffinity affinity(kConfig, Backend::kCuda);
    ExpertAffinity reference(kConfig, Backend::kReference);
    const AffinityBatch batch(150, num_tokens, slots, 1, random);
    affinity.record(batch.view());
    affinity.update();
    reference.record(batch.view());
    reference.update();
    expect_same(affinity, reference);
  }
}

TEST(CudaAffinity, UnknownIdsCountAsPaddingAndNegativeCountsAsNone) {
  ExpertAffinity affinity({.num_experts = 3}, Backend::kCuda);
  constexpr int32_t kLowest = std::numeric_limits<int32_t>::min();
  constexpr int32_t kHighest = std::numeric_limits<int32_t>::max();
  affinity.record(AffinityBatch({0, 3, -2, kLowest, kHighest, 2, -1, 0}, 2).view());
  const BackendVector<int64_t> counts{-1, 4, std::numeric_limits<int64_t>::min()};
  affinity.update(view_of(counts));
  EXPECT_EQ(activations_of(affinity), (std::vector<int64_t>{2, 4, 1}));
}

TEST(CudaAffinity, Contract10_MemoryThatKernelsCannotFollowIsRefused) {
  ExpertAffinity affinity(kConfig, Backend::kCuda);
  const auto refusal = [](const std::function<void()>& call) {
    std::string text = "accepted";
    EXPECT_EQ(launches_of([&] {
                try {
                  call();
                } catch (const InvalidArgument& error) {
                  text = error.what();
                }
              }),
              0);
    return text;
  };
  const std::vector<int32_t> ids(12);
  const std::vector<int64_t> counts(150);
  EXPECT_EQ(refusal([&] {
              affinity.record({ids.data(), 3, 4});
            }),
            "expert_ids is host memory, must be memory of device 0");
  EXPECT_EQ(refusal([&] {
              affinity.update({counts.data(), 150});
            }),
            "tokens_per_expert is host memory, must be memory of device 0");
  const DeviceArray<int64_t> device(160);
  const auto* const odd =
      reinterpret_cast<const int64_t*>(reinterpret_cast<const std::byte*>(device.data()) + 4);
  EXPECT_EQ(refusal([&] {
              affinity.update({odd, 150});
            }),
            "tokens_per_expert is not aligned to 8 bytes");
  affinity.update();
  EXPECT_EQ(activations_of(affinity), std::vector<int64_t>(150));
}

TEST(CudaAffinity, NeedsADevice) {
  const simt::ScopedSettings scope;
  simt::settings().num_devices = 0;
  EXPECT_THROW(cuda::make_cuda_affinity(kConfig), Unavailable);
}

TEST(CudaAffinity, Contract10_AnErrorThatCannotBeUndoneIsReportedOnce) {
  if (simt::kHasAddressSanitizer) GTEST_SKIP() << "AddressSanitizer stops the program first";
  ExpertAffinity affinity(kConfig, Backend::kCuda);
  const DeviceArray<int32_t> few(8);
  const auto message = [&] {
    try {
      affinity.record({few.data(), 4000, 8});
      require_success(cudaDeviceSynchronize());
    } catch (const CudaError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(message().find("launch of record_affinity_kernel: cudaError"), std::string::npos);
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
  simt::reset();
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::test
