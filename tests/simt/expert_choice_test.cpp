// What only the device's expert choice has: launches, streams, graphs, memory that kernels cannot
// follow, errors that outlive the call. That its bits are the reference's is for the suite that
// every backend passes.
#include "switchyard/expert_choice.h"

#include <gtest/gtest.h>

#include <functional>

#include "cuda/expert_choice.h"
#include "switchyard/errors.h"
#include "tests/routing_inputs.h"
#include "tests/simt/address_sanitizer.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

constexpr int32_t kExperts = 12;

ExpertChoiceConfig config_of(ExpertChoiceScore score, double capacity_factor = 2.0) {
  return {.num_experts = kExperts, .capacity_factor = capacity_factor, .score = score};
}

constexpr ExpertChoiceScore kScores[] = {ExpertChoiceScore::kSoftmaxOverExperts,
                                         ExpertChoiceScore::kSoftmaxOverTokens};

std::vector<float> logits_of(int64_t num_tokens, uint64_t seed) {
  return Logits(Distribution::kHeavyTies, DataType::kFloat32, num_tokens, kExperts, kExperts, seed)
      .dense();
}

/// A batch in device memory.
struct DeviceChoice {
  DeviceChoice(const ExpertChoiceRouter& device_router, int64_t tokens)
      : router(device_router),
        num_tokens(tokens),
        capacity(expert_choice_capacity(router.config(), tokens)),
        logits(static_cast<size_t>(tokens * kExperts)),
        ids(static_cast<size_t>(capacity * kExperts)),
        weights(ids.size()),
        workspace(static_cast<size_t>(router.workspace_bytes(tokens))) {}

  [[nodiscard]] ExpertChoiceInputs inputs() const {
    return {MatrixView<const float>(logits.data(), num_tokens, kExperts)};
  }
  [[nodiscard]] ExpertChoiceResult result() const {
    return {{ids.data(), kExperts, capacity}, {weights.data(), kExperts, capacity}};
  }
  void route(StreamView stream = {}) const {
    router.route(inputs(), result(), {workspace.data(), workspace.size()}, stream);
  }
  /// Compares ids and weights with the reference's.
  void expect_chosen(const std::vector<float>& values) const {
    std::vector<int32_t> expected_ids(ids.size());
    std::vector<float> expected_weights(ids.size());
    ExpertChoiceRouter(router.config(), Backend::kReference)
        .route({MatrixView<const float>(values.data(), num_tokens, kExperts)},
               {{expected_ids.data(), kExperts, capacity},
                {expected_weights.data(), kExperts, capacity}},
               {});
    EXPECT_EQ(ids.download(), expected_ids);
    EXPECT_EQ(weights.download(), expected_weights);
  }

  const ExpertChoiceRouter& router;
  int64_t num_tokens;
  int64_t capacity;
  DeviceArray<float> logits;
  DeviceArray<int32_t> ids;
  DeviceArray<float> weights;
  DeviceArray<std::byte> workspace;
};

TEST(CudaExpertChoice, Contract7_AGraphChoosesFromWhatIsThereWhenItRuns) {
  for (const ExpertChoiceScore score : kScores) {
    const ExpertChoiceRouter router(config_of(score), Backend::kCuda);
    for (const int64_t num_tokens : {5, 700}) {
      DeviceChoice batch(router, num_tokens);
      const int64_t allocations = simt::num_device_allocations();
      const CapturedGraph graph([&](cudaStream_t stream) { batch.route(stream); });
      EXPECT_EQ(simt::num_device_allocations(), allocations);
      for (uint64_t seed = 1; seed <= 3; ++seed) {
        const std::vector<float> values = logits_of(num_tokens, seed);
        batch.logits.upload(values);
        graph.replay();
        batch.expect_chosen(values);
      }
    }
  }
}

TEST(CudaExpertChoice, StreamsDoNotDisturbEachOther) {
  const ExpertChoiceRouter router(config_of(kScores[0]), Backend::kCuda);
  for (const simt::StreamOrder order : {simt::StreamOrder::kDeferred, simt::StreamOrder::kRandom}) {
    const simt::ScopedSettings scope;
    simt::settings().stream_order = order;
    DeviceChoice first(router, 150);
    DeviceChoice second(router, 90);
    const std::vector<float> first_values = logits_of(150, 1);
    const std::vector<float> second_values = logits_of(90, 2);
    first.logits.upload(first_values);
    second.logits.upload(second_values);
    const Stream streams[2];
    for (int round = 0; round < 3; ++round) {
      first.route(streams[0].handle);
      second.route(streams[1].handle);
    }
    require_success(cudaDeviceSynchronize());
    first.expect_chosen(first_values);
    second.expect_chosen(second_values);
  }
}

TEST(CudaExpertChoice, AnyBatchTakesTwoLaunches) {
  for (const ExpertChoiceScore score : kScores) {
    for (const double capacity_factor : {0.5, 12.0}) {
      const ExpertChoiceRouter router(config_of(score, capacity_factor), Backend::kCuda);
      const auto launches = [&](int64_t num_tokens) {
        DeviceChoice batch(router, num_tokens);
        const std::vector<float> values = logits_of(num_tokens, 1);
        if (num_tokens > 0) batch.logits.upload(values);
        const int64_t before = simt::statistics().launches;
        batch.route();
        const int64_t count = simt::statistics().launches - before;
        batch.expect_chosen(values);
        return count;
      };
      EXPECT_EQ(launches(0), 0);
      EXPECT_EQ(launches(1), 2);
      EXPECT_EQ(launches(1500), 2);
    }
  }
}

/// Before compute capability 9.0 a grid cannot start beside the one before.
TEST(CudaExpertChoice, DevicesWithoutDependentLaunchesChooseToo) {
  const simt::ScopedSettings scope;
  simt::settings().compute_capability = 80;
  const ExpertChoiceRouter router(config_of(kScores[1]), Backend::kCuda);
  DeviceChoice batch(router, 200);
  const std::vector<float> values = logits_of(200, 1);
  batch.logits.upload(values);
  batch.route();
  batch.expect_chosen(values);
}

/// Orders of threads in which a missing barrier shows.
TEST(CudaExpertChoice, Contract4_AnyOrderOfThreadsGivesTheSameBits) {
  for (const simt::Order order :
       {simt::Order::kForward, simt::Order::kReverse, simt::Order::kRandom}) {
    for (const ExpertChoiceScore score : kScores) {
      for (const double capacity_factor : {2.0, 12.0}) {
        const simt::ScopedSettings scope;
        simt::settings().order = order;
        const ExpertChoiceRouter router(config_of(score, capacity_factor), Backend::kCuda);
        DeviceChoice batch(router, 1100);
        const std::vector<float> values = logits_of(1100, 7);
        batch.logits.upload(values);
        batch.route();
        batch.expect_chosen(values);
      }
    }
  }
}

TEST(CudaExpertChoice, Contract10_MemoryThatKernelsCannotFollowIsRefused) {
  const ExpertChoiceRouter router(config_of(kScores[0]), Backend::kCuda);
  const DeviceChoice batch(router, 20);
  struct Call {
    ExpertChoiceInputs inputs;
    ExpertChoiceResult result;
    std::span<std::byte> workspace;
  };
  const auto refusal = [&](const std::function<void(Call&)>& change) {
    Call call{batch.inputs(), batch.result(), {batch.workspace.data(), batch.workspace.size()}};
    change(call);
    const int64_t before = simt::statistics().launches;
    std::string text = "accepted";
    try {
      router.route(call.inputs, call.result, call.workspace);
    } catch (const InvalidArgument& error) {
      text = error.what();
    }
    EXPECT_EQ(simt::statistics().launches, before);
    return text;
  };
  std::vector<float> host(20 * kExperts);
  std::vector<int32_t> host_ids(host.size());
  std::vector<std::byte> host_workspace(batch.workspace.size());
  const std::vector<uint8_t> mask(20);
  const std::string said = " is host memory, must be memory of device 0";
  EXPECT_EQ(refusal([&](Call& call) { call.inputs.logits.data = host.data(); }), "logits" + said);
  EXPECT_EQ(refusal([&](Call& call) {
              call.inputs.token_mask = {mask.data(), 20};
            }),
            "token_mask" + said);
  EXPECT_EQ(refusal([&](Call& call) { call.result.token_ids.data = host_ids.data(); }),
            "token_ids" + said);
  EXPECT_EQ(refusal([&](Call& call) { call.result.gate_weights.data = host.data(); }),
            "gate_weights" + said);
  EXPECT_EQ(refusal([&](Call& call) { call.workspace = host_workspace; }), "workspace" + said);
  EXPECT_EQ(refusal([](Call& call) {
              call.inputs.logits.data = static_cast<const std::byte*>(call.inputs.logits.data) + 2;
            }),
            "logits is not aligned to 4 bytes");
  const DeviceArray<std::byte> larger(batch.workspace.size() + 8);
  EXPECT_EQ(refusal([&](Call& call) {
              call.workspace = {larger.data() + 8, batch.workspace.size()};
            }),
            "workspace is not aligned to 16 bytes");
}

/// A view that is longer than the memory behind it: the device stops, and the router says so once
/// with the call, then that it is of no more use.
TEST(CudaExpertChoice, Contract10_AnErrorThatCannotBeUndoneIsReportedOnce) {
  if (simt::kHasAddressSanitizer) GTEST_SKIP() << "AddressSanitizer stops the program first";
  const ExpertChoiceRouter router(config_of(kScores[0]), Backend::kCuda);
  const DeviceChoice batch(router, 64);
  ExpertChoiceInputs inputs = batch.inputs();
  const DeviceArray<float> few(std::vector<float>{0.0f});
  inputs.logits.data = few.data();
  const auto message = [&] {
    try {
      router.route(inputs, batch.result(), {batch.workspace.data(), batch.workspace.size()});
      require_success(cudaDeviceSynchronize());
    } catch (const CudaError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(message().find("launch of score_tokens_kernel: cudaError"), std::string::npos);
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
  simt::reset();
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
}

TEST(CudaExpertChoice, NeedsADevice) {
  const simt::ScopedSettings scope;
  simt::settings().num_devices = 0;
  EXPECT_THROW(cuda::make_cuda_expert_choice_router(config_of(kScores[0])), Unavailable);
}

}  // namespace
}  // namespace switchyard::test
