// What only the device's hash routing has: launches, streams, graphs, ids that nobody checked,
// memory that kernels cannot follow. That its bits are the reference's is for the suite that every
// backend passes.
#include "switchyard/hash_routing.h"

#include <gtest/gtest.h>

#include <functional>

#include "cuda/hash_routing.h"
#include "switchyard/errors.h"
#include "tests/routing_inputs.h"
#include "tests/simt/address_sanitizer.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

constexpr int64_t kVocabulary = 30;
constexpr RouterConfig kConfig{
    .num_experts = 40, .top_k = 6, .renormalize = false, .num_shared_experts = 1};

std::vector<float> logits_of(int64_t num_tokens, uint64_t seed) {
  return Logits(Distribution::kNormal, DataType::kFloat32, num_tokens, kConfig.num_experts,
                kConfig.num_experts, seed)
      .dense();
}

std::vector<int32_t> hash_table() {
  std::vector<int32_t> table(static_cast<size_t>(kVocabulary * kConfig.top_k));
  fill_hash_table(kConfig.num_experts, 5, {table.data(), kVocabulary, kConfig.top_k});
  return table;
}

/// Padding now and then.
std::vector<int32_t> token_ids_of(int64_t num_tokens) {
  std::vector<int32_t> ids;
  for (int64_t token = 0; token < num_tokens; ++token) {
    ids.push_back(static_cast<int32_t>(token * 7 % (kVocabulary + 1)) - 1);
  }
  return ids;
}

/// A batch in device memory.
struct DeviceBatch {
  explicit DeviceBatch(int64_t tokens)
      : num_tokens(tokens),
        table(hash_table()),
        token_ids(token_ids_of(tokens)),
        logits(static_cast<size_t>(tokens * kConfig.num_experts)),
        ids(static_cast<size_t>(tokens * kConfig.num_slots())),
        weights(ids.size()),
        counts(static_cast<size_t>(kConfig.num_expert_ids())) {}

  [[nodiscard]] HashRoutingInputs inputs() const {
    return {{token_ids.data(), num_tokens},
            {table.data(), kVocabulary, kConfig.top_k},
            MatrixView<const float>(logits.data(), num_tokens, kConfig.num_experts)};
  }
  [[nodiscard]] RoutingResult result() const {
    RoutingResult result;
    result.expert_ids = {ids.data(), num_tokens, kConfig.num_slots()};
    result.gate_weights = MatrixView<float>(weights.data(), num_tokens, kConfig.num_slots());
    result.tokens_per_expert = {counts.data(), kConfig.num_expert_ids()};
    return result;
  }
  /// Compares ids, weights and counts with the reference's.
  void expect_routed(const std::vector<float>& values) const {
    const std::vector<int32_t> host_table = hash_table();
    const std::vector<int32_t> host_ids = token_ids_of(num_tokens);
    std::vector<int32_t> expected_ids(ids.size());
    std::vector<float> expected_weights(ids.size());
    std::vector<int64_t> expected_counts(counts.size());
    RoutingResult expected;
    expected.expert_ids = {expected_ids.data(), num_tokens, kConfig.num_slots()};
    expected.gate_weights =
        MatrixView<float>(expected_weights.data(), num_tokens, kConfig.num_slots());
    expected.tokens_per_expert = {expected_counts.data(), kConfig.num_expert_ids()};
    HashRouter(kConfig, Backend::kReference)
        .route({{host_ids.data(), num_tokens},
                {host_table.data(), kVocabulary, kConfig.top_k},
                MatrixView<const float>(values.data(), num_tokens, kConfig.num_experts)},
               expected);
    EXPECT_EQ(ids.download(), expected_ids);
    EXPECT_EQ(weights.download(), expected_weights);
    EXPECT_EQ(counts.download(), expected_counts);
  }

  int64_t num_tokens;
  DeviceArray<int32_t> table;
  DeviceArray<int32_t> token_ids;
  DeviceArray<float> logits;
  DeviceArray<int32_t> ids;
  DeviceArray<float> weights;
  DeviceArray<int64_t> counts;
};

TEST(CudaHashRouting, Contract7_AGraphRoutesWhatIsThereWhenItRuns) {
  const HashRouter router(kConfig, Backend::kCuda);
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

TEST(CudaHashRouting, StreamsDoNotDisturbEachOther) {
  const HashRouter router(kConfig, Backend::kCuda);
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
TEST(CudaHashRouting, LaunchesAreFew) {
  const HashRouter router(kConfig, Backend::kCuda);
  EXPECT_EQ(router.workspace_bytes(1'000'000), 0);
  const auto launches = [&](int64_t num_tokens, bool with_counts) {
    DeviceBatch batch(num_tokens);
    if (num_tokens > 0) batch.logits.upload(logits_of(num_tokens, 1));
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
TEST(CudaHashRouting, DevicesWithoutDependentLaunchesRouteToo) {
  const simt::ScopedSettings scope;
  simt::settings().compute_capability = 80;
  const HashRouter router(kConfig, Backend::kCuda);
  DeviceBatch batch(200);
  const std::vector<float> values = logits_of(200, 1);
  batch.logits.upload(values);
  router.route(batch.inputs(), batch.result());
  batch.expect_routed(values);
}

TEST(CudaHashRouting, Contract10_MemoryThatKernelsCannotFollowIsRefused) {
  const HashRouter router(kConfig, Backend::kCuda);
  const DeviceBatch batch(20);
  const auto refusal = [&](const std::function<void(HashRoutingInputs&, RoutingResult&)>& change) {
    HashRoutingInputs inputs = batch.inputs();
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
  const std::string said = " is host memory, must be memory of device 0";
  const std::vector<float> floats(20 * 40);
  std::vector<int32_t> ids(20 * 40);
  std::vector<int64_t> counts(41);
  using Inputs = HashRoutingInputs;
  using Result = RoutingResult;
  EXPECT_EQ(refusal([&](Inputs& inputs, Result&) { inputs.token_ids.data = ids.data(); }),
            "token_ids" + said);
  EXPECT_EQ(refusal([&](Inputs& inputs, Result&) { inputs.table.data = ids.data(); }),
            "table" + said);
  EXPECT_EQ(refusal([&](Inputs& inputs, Result&) { inputs.logits.data = floats.data(); }),
            "logits" + said);
  EXPECT_EQ(refusal([&](Inputs&, Result& result) { result.expert_ids.data = ids.data(); }),
            "expert_ids" + said);
  EXPECT_EQ(refusal([&](Inputs&, Result& result) { result.gate_weights.data = ids.data(); }),
            "gate_weights" + said);
  EXPECT_EQ(
      refusal([&](Inputs&, Result& result) { result.tokens_per_expert.data = counts.data(); }),
      "tokens_per_expert" + said);
  EXPECT_EQ(refusal([&](Inputs&, Result& result) { result.num_degenerate_rows = counts.data(); }),
            "num_degenerate_rows" + said);
  EXPECT_EQ(refusal([](Inputs& inputs, Result&) {
              inputs.logits.data = static_cast<const std::byte*>(inputs.logits.data) + 2;
            }),
            "logits is not aligned to 4 bytes");
}

/// A view that is longer than the memory behind it: the device stops, and the router says so once
/// with the call, then that it is of no more use.
TEST(CudaHashRouting, Contract10_AnErrorThatCannotBeUndoneIsReportedOnce) {
  if (simt::kHasAddressSanitizer) GTEST_SKIP() << "AddressSanitizer stops the program first";
  const HashRouter router(kConfig, Backend::kCuda);
  const DeviceBatch batch(64);
  HashRoutingInputs inputs = batch.inputs();
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
  EXPECT_NE(message().find("launch of hash_kernel: cudaError"), std::string::npos);
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
  simt::reset();
  EXPECT_NE(message().find("no longer usable"), std::string::npos);
}

TEST(CudaHashRouting, NeedsADevice) {
  const simt::ScopedSettings scope;
  simt::settings().num_devices = 0;
  EXPECT_THROW(cuda::make_cuda_hash_router(kConfig), Unavailable);
}

}  // namespace
}  // namespace switchyard::test
