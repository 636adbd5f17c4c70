// What only the device's routing has: streams, graphs, memory that kernels cannot follow, errors
// that outlive the call. That its bits are the reference's is for the conformance tests.
#include <gtest/gtest.h>

#include <functional>

#include "switchyard/errors.h"
#include "tests/routing_case.h"
#include "tests/simt/address_sanitizer.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

constexpr RouterConfig kConfig{.num_experts = 40, .top_k = 6};

std::vector<float> logits_of(int64_t num_tokens, uint64_t seed) {
  return Logits(Distribution::kNormal, DataType::kFloat32, num_tokens, kConfig.num_experts,
                kConfig.num_experts, seed)
      .dense();
}

/// A batch in device memory.
struct DeviceBatch {
  explicit DeviceBatch(int64_t tokens)
      : num_tokens(tokens),
        logits(static_cast<size_t>(tokens * kConfig.num_experts)),
        ids(static_cast<size_t>(tokens * kConfig.top_k)),
        weights(ids.size()),
        counts(static_cast<size_t>(kConfig.num_experts)) {}

  [[nodiscard]] RoutingInputs inputs() const {
    RoutingInputs inputs;
    inputs.logits = MatrixView<const float>(logits.data(), num_tokens, kConfig.num_experts);
    return inputs;
  }
  [[nodiscard]] RoutingResult result() const {
    RoutingResult result;
    result.expert_ids = {ids.data(), num_tokens, kConfig.top_k};
    result.gate_weights = MatrixView<float>(weights.data(), num_tokens, kConfig.top_k);
    result.tokens_per_expert = {counts.data(), kConfig.num_experts};
    return result;
  }
  /// Compares ids, weights and counts with the reference's.
  void expect_routed(const std::vector<float>& values) const {
    std::vector<int32_t> expected_ids(ids.size());
    std::vector<float> expected_weights(ids.size());
    std::vector<int64_t> expected_counts(counts.size());
    RoutingInputs host;
    host.logits = MatrixView<const float>(values.data(), num_tokens, kConfig.num_experts);
    RoutingResult expected;
    expected.expert_ids = {expected_ids.data(), num_tokens, kConfig.top_k};
    expected.gate_weights = MatrixView<float>(expected_weights.data(), num_tokens, kConfig.top_k);
    expected.tokens_per_expert = {expected_counts.data(), kConfig.num_experts};
    Router(kConfig, Backend::kReference).route(host, expected);
    EXPECT_EQ(ids.download(), expected_ids);
    EXPECT_EQ(weights.download(), expected_weights);
    EXPECT_EQ(counts.download(), expected_counts);
  }

  int64_t num_tokens;
  DeviceArray<float> logits;
  DeviceArray<int32_t> ids;
  DeviceArray<float> weights;
  DeviceArray<int64_t> counts;
};

TEST(CudaRouting, Contract7_AGraphRoutesWhatIsThereWhenItRuns) {
  const Router router(kConfig, Backend::kCuda);
  for (const int64_t num_tokens : {5, 200}) {
    DeviceBatch batch(num_tokens);
    const int64_t allocations = simt::num_device_allocations();
    const CapturedGraph graph(
        [&](cudaStream_t stream) { router.route(batch.inputs(), batch.result(), {}, stream); });
    EXPECT_EQ(simt::num_device_allocations(), allocations);
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      const std::vector<float> values = logits_of(num_tokens, seed);
      batch.logits.upload(values);
      graph.replay();
      batch.expect_routed(values);
    }
  }
}

TEST(CudaRouting, StreamsDoNotDisturbEachOther) {
  const Router router(kConfig, Backend::kCuda);
  for (const simt::StreamOrder order : {simt::StreamOrder::kDeferred, simt::StreamOrder::kRandom}) {
    const simt::ScopedSettings scope;
    simt::settings().stream_order = order;
    DeviceBatch first(150);
    DeviceBatch second(90);
    const std::vector<float> first_values = logits_of(150, 1);
    const std::vector<float> second_values = logits_of(90, 2);
    first.logits.upload(first_values);
    second.logits.upload(second_values);
    const Stream streams[2];
    for (int round = 0; round < 3; ++round) {
      router.route(first.inputs(), first.result(), {}, streams[0].handle);
      router.route(second.inputs(), second.result(), {}, streams[1].handle);
    }
    require_success(cudaDeviceSynchronize());
    first.expect_routed(first_values);
    second.expect_routed(second_values);
  }
}

/// Few tokens are one launch; counts of more take another that clears them.
TEST(CudaRouting, LaunchesAreFew) {
  const Router router(kConfig, Backend::kCuda);
  const auto launches = [&](int64_t num_tokens, bool with_counts) {
    DeviceBatch batch(num_tokens);
    batch.logits.upload(logits_of(num_tokens, 1));
    RoutingResult result = batch.result();
    if (!with_counts) result.tokens_per_expert = {};
    const int64_t before = simt::statistics().launches;
    router.route(batch.inputs(), result);
    return simt::statistics().launches - before;
  };
  EXPECT_EQ(launches(1, true), 1);
  EXPECT_EQ(launches(8, true), 1);
  EXPECT_EQ(launches(300, true), 2);
  EXPECT_EQ(launches(300, false), 1);
  EXPECT_EQ(launches(0, false), 0);
}

/// Before compute capability 9.0 a grid cannot start beside the one before.
TEST(CudaRouting, DevicesWithoutDependentLaunchesRouteToo) {
  const simt::ScopedSettings scope;
  simt::settings().compute_capability = 80;
  const Router router(kConfig, Backend::kCuda);
  DeviceBatch batch(200);
  const std::vector<float> values = logits_of(200, 1);
  batch.logits.upload(values);
  router.route(batch.inputs(), batch.result());
  batch.expect_routed(values);
}

TEST(CudaRouting, Contract10_MemoryThatKernelsCannotFollowIsRefused) {
  const Router router(kConfig, Backend::kCuda);
  const DeviceBatch batch(20);
  const auto refusal = [&](const std::function<void(RoutingInputs&, RoutingResult&)>& change) {
    RoutingInputs inputs = batch.inputs();
    RoutingResult result = batch.result();
    change(inputs, result);
    const int64_t before = simt::statistics().launches;
    std::string text = "accepted";
    try {
      router.route(inputs, result);
    } catch (const InvalidArgument& error) {
      text = error.what();
    }
    EXPECT_EQ(simt::statistics().launches, before);
    return text;
  };
  const std::vector<float> host(20 * 40);
  EXPECT_EQ(
      refusal([&](RoutingInputs& inputs, RoutingResult&) { inputs.logits.data = host.data(); }),
      "logits is host memory, must be memory of device 0");
  EXPECT_EQ(refusal([&](RoutingInputs& inputs, RoutingResult&) {
              inputs.selection_bias = {host.data(), 40};
            }),
            "selection_bias is host memory, must be memory of device 0");
  EXPECT_EQ(refusal([](RoutingInputs& inputs, RoutingResult&) {
              inputs.logits.data = static_cast<const std::byte*>(inputs.logits.data) + 2;
            }),
            "logits is not aligned to 4 bytes");
  int64_t on_host = 0;
  EXPECT_EQ(refusal([&](RoutingInputs&, RoutingResult& result) {
              result.num_degenerate_rows = &on_host;
            }),
            "num_degenerate_rows is host memory, must be memory of device 0");
}

/// A view that is longer than the memory behind it: the device stops, and the router says so once
/// with the call, then that it is of no more use.
TEST(CudaRouting, Contract10_StreamsOfOtherDevicesAndOtherCurrentDevicesAreRefused) {
  const simt::ScopedSettings scope;
  simt::settings().num_devices = 2;
  const Router router(kConfig, Backend::kCuda);
  DeviceBatch batch(20);
  batch.logits.upload(logits_of(20, 5));
  const Stream here;
  const auto refusal = [&](StreamView stream) {
    const int64_t before = simt::statistics().launches;
    std::string text = "accepted";
    try {
      router.route(batch.inputs(), batch.result(), {}, stream);
    } catch (const InvalidArgument& error) {
      text = error.what();
      EXPECT_EQ(simt::statistics().launches, before);
    }
    return text;
  };
  require_success(cudaSetDevice(1));
  {
    const Stream there;
    EXPECT_EQ(refusal(here.handle), "stream belongs to device 0, but device 1 is current");
    EXPECT_EQ(refusal({}), "stream belongs to device 1, must belong to device 0");
    EXPECT_EQ(refusal(there.handle), "stream belongs to device 1, must belong to device 0");
    require_success(cudaSetDevice(0));
    EXPECT_EQ(refusal(there.handle), "stream belongs to device 1, must belong to device 0");
  }
  EXPECT_EQ(refusal(here.handle), "accepted");
  require_success(cudaStreamSynchronize(here.handle));
}

TEST(CudaRouting, Contract10_AnErrorThatCannotBeUndoneIsReportedOnce) {
  if (simt::kHasAddressSanitizer) GTEST_SKIP() << "AddressSanitizer stops the program first";
  const Router router(kConfig, Backend::kCuda);
  const DeviceBatch batch(64);
  RoutingInputs inputs = batch.inputs();
  const DeviceArray<float> few(std::vector<float>(40));
  inputs.logits.data = few.data();
  const auto message = [&] {
    try {
      router.route(inputs, batch.result());
      require_success(cudaDeviceSynchronize());
    } catch (const CudaError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(message().find("launch of route_kernel: cudaError"), std::string::npos);
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
  simt::reset();
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::test
