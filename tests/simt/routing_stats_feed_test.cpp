// The feed on a device: numbers come over as the stream had them, and nobody waits.
#include "switchyard/routing_stats_feed.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "switchyard/errors.h"
#include "switchyard/result_staging.h"
#include "switchyard/router.h"
#include "switchyard/router_losses.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"
#include "tests/simt/device_array.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

VectorView<const int64_t> view(const DeviceArray<int64_t>& array) {
  return {array.data(), static_cast<int64_t>(array.size())};
}

VectorView<const int64_t> view(const std::vector<int64_t>& values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

/// Every order in which work in streams may run.
void with_stream_orders(const std::function<void()>& body) {
  for (const auto order :
       {simt::StreamOrder::kEager, simt::StreamOrder::kDeferred, simt::StreamOrder::kRandom}) {
    const simt::ScopedSettings scope;
    simt::settings().stream_order = order;
    body();
  }
}

TEST(CudaRoutingStatsFeed, FollowsARouterInItsStream) {
  with_stream_orders([] {
    const Router router({.num_experts = 24, .top_k = 3}, Backend::kCuda);
    RoutingStats stats({.num_experts = 24});
    RoutingStats expected({.num_experts = 24});
    RoutingStatsFeed feed(stats, Backend::kCuda, 4);
    RandomStream random(3);
    const DeviceArray<float> logits(60 * 24);
    const DeviceArray<int32_t> ids(60 * 3);
    const DeviceArray<float> weights(60 * 3);
    const DeviceArray<int64_t> counts(24);
    const DeviceArray<int64_t> loss_sums(static_cast<size_t>(router_loss_sums_size(24)));
    RoutingResult result;
    result.expert_ids = {ids.data(), 60, 3};
    result.gate_weights = MatrixView<float>(weights.data(), 60, 3);
    result.tokens_per_expert = {counts.data(), 24};
    result.loss_sums = {loss_sums.data(), router_loss_sums_size(24)};
    const Stream stream;
    const Router reference({.num_experts = 24, .top_k = 3}, Backend::kReference);
    for (int batch = 0; batch < 3; ++batch) {
      std::vector<float> values(60 * 24);
      for (float& value : values) value = static_cast<float>(random.normal());
      require_success(cudaMemcpyAsync(logits.data(), values.data(), values.size() * sizeof(float),
                                      cudaMemcpyHostToDevice, stream.handle));
      router.route({.logits = MatrixView<const float>(logits.data(), 60, 24)}, result, {},
                   stream.handle);
      EXPECT_TRUE(feed.record(
          {.num_tokens = 60, .tokens_per_expert = view(counts), .loss_sums = view(loss_sums)},
          stream.handle));

      std::vector<int32_t> host_ids(60 * 3);
      std::vector<float> host_weights(60 * 3);
      std::vector<int64_t> host_counts(24);
      std::vector<int64_t> host_sums(loss_sums.size());
      RoutingResult host;
      host.expert_ids = {host_ids.data(), 60, 3};
      host.gate_weights = MatrixView<float>(host_weights.data(), 60, 3);
      host.tokens_per_expert = {host_counts.data(), 24};
      host.loss_sums = {host_sums.data(), router_loss_sums_size(24)};
      reference.route({.logits = MatrixView<const float>(values.data(), 60, 24)}, host);
      const RouterLosses losses = finalize_router_losses(view(host_sums), view(host_counts));
      expected.record({.num_tokens = 60,
                       .tokens_per_expert = view(host_counts),
                       .balance_loss = losses.balance_loss,
                       .z_loss = losses.z_loss});
    }
    feed.finish();
    EXPECT_EQ(stats.snapshot().layers, expected.snapshot().layers);
  });
}

TEST(CudaRoutingStatsFeed, NeitherHostNorStreamWaits) {
  const simt::ScopedSettings scope;
  simt::settings().stream_order = simt::StreamOrder::kDeferred;  // nothing runs unless waited for
  RoutingStats stats({.num_experts = 2});
  RoutingStatsFeed feed(stats, Backend::kCuda, 3);
  const DeviceArray<int64_t> counts(std::vector<int64_t>{5, 3});
  const Stream stream;
  const FedRouting routing{.num_tokens = 8, .tokens_per_expert = view(counts)};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(feed.record(routing, stream.handle));
  EXPECT_EQ(feed.collect(), 0);
  EXPECT_FALSE(feed.record(routing, stream.handle));
  EXPECT_EQ(feed.num_skipped(), 1);
  EXPECT_EQ(stats.snapshot().layers[0].sums.routings, 0);
  require_success(cudaStreamSynchronize(stream.handle));
  EXPECT_TRUE(feed.record(routing, stream.handle));  // collects first, and so finds a slot
  EXPECT_EQ(stats.snapshot().layers[0].sums.routings, 3);
  EXPECT_EQ(feed.num_under_way(), 1);
  feed.finish();
  EXPECT_EQ(stats.snapshot().layers[0].sums.tokens, 32);
}

TEST(CudaRoutingStatsFeed, LaterWorkInTheStreamMayWriteAnew) {
  with_stream_orders([] {
    RoutingStats stats({.num_experts = 3});
    RoutingStatsFeed feed(stats, Backend::kCuda, 16);
    const DeviceArray<int64_t> counts(3);
    const Stream stream;
    for (int64_t i = 1; i <= 10; ++i) {
      const std::vector<int64_t> values = {i, 2 * i, 3 * i};
      require_success(
          cudaMemcpyAsync(counts.data(), values.data(), 24, cudaMemcpyHostToDevice, stream.handle));
      feed.record({.num_tokens = 6 * i, .tokens_per_expert = view(counts)}, stream.handle);
    }
    feed.finish();
    const LayerStats layer = stats.snapshot().layers[0];
    EXPECT_EQ(layer.tokens_per_expert, (std::vector<int64_t>{55, 110, 165}));
    ASSERT_EQ(layer.load_variances.size(), 10u);
    EXPECT_DOUBLE_EQ(layer.load_variances[9], 100.0 * 2.0 / 3.0);  // in the order of the calls
  });
}

TEST(CudaRoutingStatsFeed, TotalsComeOverToo) {
  RoutingStats stats({.num_experts = 2});
  RoutingStatsFeed feed(stats, Backend::kCuda);
  const DeviceArray<int64_t> counts(std::vector<int64_t>{5, 3});
  const DeviceArray<PermutationTotals> totals(std::vector<PermutationTotals>{
      {.kept_assignments = 8, .dropped_assignments = 4, .fully_dropped_tokens = 1}});
  feed.record({.num_tokens = 6, .tokens_per_expert = view(counts), .totals = totals.data()});
  feed.finish();
  EXPECT_EQ(stats.snapshot().layers[0].sums.dropped_assignments, 4);
  EXPECT_EQ(stats.snapshot().layers[0].sums.fully_dropped_tokens, 1);
}

TEST(CudaRoutingStatsFeed, DestroyedInTheMiddleItWaits) {
  const simt::ScopedSettings scope;
  simt::settings().stream_order = simt::StreamOrder::kDeferred;
  RoutingStats stats({.num_experts = 2});
  const DeviceArray<int64_t> counts(std::vector<int64_t>{5, 3});
  const Stream stream;
  {
    RoutingStatsFeed feed(stats, Backend::kCuda);
    feed.record({.num_tokens = 8, .tokens_per_expert = view(counts)}, stream.handle);
  }
  require_success(cudaStreamSynchronize(stream.handle));  // must not write into what is gone
  EXPECT_EQ(stats.snapshot().layers[0].sums.routings, 0);
}

TEST(CudaRoutingStatsFeed, Contract10_MemoryAndStreamsThatItCannotFollow) {
  RoutingStats stats({.num_experts = 2});
  RoutingStatsFeed feed(stats, Backend::kCuda);
  const std::vector<int64_t> host = {5, 3};
  EXPECT_EQ(refusal([&] { feed.record({.num_tokens = 8, .tokens_per_expert = view(host)}); }),
            "tokens_per_expert is host memory, must be memory of device 0");
  const DeviceArray<int64_t> counts(4);
  const auto* const odd =
      reinterpret_cast<const int64_t*>(reinterpret_cast<const std::byte*>(counts.data()) + 4);
  EXPECT_EQ(refusal([&] {
              feed.record({.num_tokens = 8, .tokens_per_expert = {odd, 2}});
            }),
            "tokens_per_expert is not aligned to 8 bytes");
  const PermutationTotals totals;
  EXPECT_EQ(
      refusal([&] {
        feed.record({.num_tokens = 8, .tokens_per_expert = {counts.data(), 2}, .totals = &totals});
      }),
      "totals is host memory, must be memory of device 0");
  std::string captured;
  const CapturedGraph graph([&](cudaStream_t stream) {
    captured = refusal([&] {
      feed.record({.num_tokens = 8, .tokens_per_expert = {counts.data(), 2}}, stream);
    });
  });
  EXPECT_EQ(captured,
            "stream is being captured, must not be: results come over behind a graph's launch");
  EXPECT_EQ(feed.num_under_way(), 0);
}

TEST(CudaRoutingStatsFeed, NeedsADevice) {
  const simt::ScopedSettings scope;
  simt::settings().num_devices = 0;
  RoutingStats stats({.num_experts = 2});
  EXPECT_THROW(make_result_staging(1, 64, Backend::kCuda), Unavailable);
}

}  // namespace
}  // namespace switchyard::test
