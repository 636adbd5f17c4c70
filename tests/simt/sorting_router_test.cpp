// What only the device's routing and sorting in one call has: few launches, graphs, streams. That
// its bytes are the reference's is for the conformance tests.
#include "switchyard/sorting_router.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "tests/routing_inputs.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

constexpr RouterConfig kRouting{.num_experts = 40, .top_k = 6};
constexpr PermutationConfig kSorting{.num_experts = 40, .top_k = 6, .block_rows = 8};

/// A batch, routed and sorted, in memory of `backend` and of the host.
class SortedRouting {
 public:
  SortedRouting(const SortingRouter& router, int64_t num_tokens)
      : SortedRouting(router, num_tokens, router.router().backend()) {}
  SortedRouting(const SortingRouter& router, int64_t num_tokens, Backend backend)
      : router_(router),
        num_tokens_(num_tokens),
        sizes_(router.permuter().sizes(num_tokens)),
        logits_(num_tokens * num_experts(), backend),
        ids_(num_tokens * top_k(), backend),
        weights_(num_tokens * top_k(), backend),
        counts_(num_experts(), backend),
        tokens_per_expert_(num_experts(), backend),
        expert_offsets_(num_experts() + 1, backend),
        row_to_assignment_(sizes_.num_rows, backend),
        assignment_to_row_(num_tokens * top_k(), backend),
        block_experts_(sizes_.num_blocks, backend),
        totals_(1, backend),
        workspace_(router.workspace_bytes(num_tokens), backend) {}

  void fill(uint64_t seed) {
    const Logits logits(Distribution::kNormal, DataType::kFloat32, num_tokens_, num_experts(),
                        num_experts(), seed);
    const std::vector<float> values = logits.dense();
    std::copy(values.begin(), values.end(), logits_.begin());
  }

  /// `offsets` takes the place of the permutation's own.
  void route(bool with_counts, StreamView stream = {}, int64_t* offsets = nullptr) {
    RoutingInputs inputs;
    inputs.logits = MatrixView<const float>(logits_.data(), num_tokens_, num_experts());
    RoutingResult result;
    result.expert_ids = ids_.matrix(num_tokens_, top_k());
    result.gate_weights = weights_.matrix(num_tokens_, top_k());
    if (with_counts) result.tokens_per_expert = {counts_.data(), num_experts()};
    router_.route(inputs, result,
                  {{tokens_per_expert_.data(), num_experts()},
                   {offsets != nullptr ? offsets : expert_offsets_.data(), num_experts() + 1},
                   {row_to_assignment_.data(), sizes_.num_rows},
                   assignment_to_row_.matrix(num_tokens_, top_k()),
                   {block_experts_.data(), sizes_.num_blocks},
                   totals_.data()},
                  workspace_.bytes(), stream);
  }

  /// Compares with the reference for the same seed.
  void expect_sorted(uint64_t seed) const {
    const SortingRouter reference(router_.router().config(), router_.permuter().config(),
                                  Backend::kReference);
    SortedRouting expected(reference, num_tokens_);
    expected.fill(seed);
    expected.route(true);
    EXPECT_TRUE(equal(ids_, expected.ids_));
    EXPECT_TRUE(equal(weights_, expected.weights_));
    EXPECT_TRUE(equal(tokens_per_expert_, expected.tokens_per_expert_));
    EXPECT_TRUE(equal(expert_offsets_, expected.expert_offsets_));
    EXPECT_TRUE(equal(row_to_assignment_, expected.row_to_assignment_));
    EXPECT_TRUE(equal(assignment_to_row_, expected.assignment_to_row_));
    EXPECT_TRUE(equal(block_experts_, expected.block_experts_));
    EXPECT_TRUE(equal(totals_, expected.totals_));
  }

 private:
  template <typename T>
  static bool equal(const Buffer<T>& one, const Buffer<T>& other) {
    return std::equal(one.begin(), one.end(), other.begin(), other.end());
  }
  [[nodiscard]] int32_t num_experts() const { return router_.router().config().num_experts; }
  [[nodiscard]] int32_t top_k() const { return router_.router().config().top_k; }

  const SortingRouter& router_;
  int64_t num_tokens_;
  PermutationSizes sizes_;
  Buffer<float> logits_;
  Buffer<int32_t> ids_;
  Buffer<float> weights_;
  Buffer<int64_t> counts_;
  Buffer<int64_t> tokens_per_expert_;
  Buffer<int64_t> expert_offsets_;
  Buffer<int64_t> row_to_assignment_;
  Buffer<int64_t> assignment_to_row_;
  Buffer<int32_t> block_experts_;
  Buffer<PermutationTotals> totals_;
  Buffer<std::byte> workspace_;
};

TEST(CudaSortingRouter, AFewTokensTakeOneLaunch) {
  const auto launches = [](const SortingRouter& router, int64_t num_tokens, bool with_counts) {
    SortedRouting batch(router, num_tokens);
    batch.fill(1);
    const int64_t before = simt::statistics().launches;
    batch.route(with_counts);
    synchronize(Backend::kCuda);
    batch.expect_sorted(1);
    return simt::statistics().launches - before;
  };
  const SortingRouter router(kRouting, kSorting, Backend::kCuda);
  EXPECT_EQ(launches(router, 1, true), 1);
  EXPECT_EQ(launches(router, 16, true), 1);
  EXPECT_EQ(launches(router, 17, false), 2);
  EXPECT_EQ(launches(router, 1365, true), 3);  // clears counts, routes, sorts 8190 assignments
  EXPECT_EQ(launches(router, 1366, true), 5);
  const SortingRouter large({.num_experts = 513, .top_k = 2}, {.num_experts = 513, .top_k = 2},
                            Backend::kCuda);
  EXPECT_EQ(launches(large, 1, true), 2);
}

TEST(CudaSortingRouter, DevicesWithoutDependentLaunchesSortToo) {
  const simt::ScopedSettings scope;
  simt::settings().compute_capability = 80;
  const SortingRouter router(kRouting, kSorting, Backend::kCuda);
  for (const int64_t num_tokens : {16, 100, 1400}) {
    SortedRouting batch(router, num_tokens);
    batch.fill(2);
    batch.route(true);
    synchronize(Backend::kCuda);
    batch.expect_sorted(2);
  }
}

TEST(CudaSortingRouter, Contract7_AGraphSortsWhatIsThereWhenItRuns) {
  const SortingRouter router(kRouting, kSorting, Backend::kCuda);
  for (const int64_t num_tokens : {5, 200}) {
    SortedRouting batch(router, num_tokens);
    const int64_t allocations = simt::num_device_allocations();
    const CapturedGraph graph([&](cudaStream_t stream) { batch.route(true, stream); });
    EXPECT_EQ(simt::num_device_allocations(), allocations);
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      batch.fill(seed);
      graph.replay();
      batch.expect_sorted(seed);
    }
  }
}

TEST(CudaSortingRouter, StreamsDoNotDisturbEachOther) {
  const simt::ScopedSettings scope;
  simt::settings().stream_order = simt::StreamOrder::kRandom;
  const SortingRouter router(kRouting, kSorting, Backend::kCuda);
  SortedRouting first(router, 9);
  SortedRouting second(router, 120);
  first.fill(1);
  second.fill(2);
  const Stream streams[2];
  for (int round = 0; round < 3; ++round) {
    first.route(true, streams[0].handle);
    second.route(true, streams[1].handle);
  }
  require_success(cudaDeviceSynchronize());
  first.expect_sorted(1);
  second.expect_sorted(2);
}

TEST(CudaSortingRouter, Contract10_MemoryThatKernelsCannotFollowIsRefused) {
  const SortingRouter router(kRouting, kSorting, Backend::kCuda);
  const int64_t before = simt::statistics().launches;
  for (const int64_t num_tokens : {4, 40}) {
    SortedRouting batch(router, num_tokens);
    std::vector<int64_t> offsets(41);
    std::string text = "accepted";
    try {
      batch.route(true, {}, offsets.data());
    } catch (const InvalidArgument& error) {
      text = error.what();
    }
    EXPECT_EQ(text, "expert_offsets is host memory, must be memory of device 0");
  }
  EXPECT_EQ(simt::statistics().launches, before);
}

}  // namespace
}  // namespace switchyard::test
