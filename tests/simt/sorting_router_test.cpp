// What only the device's routing and sorting in one call has: few launches, graphs, streams. That
// its bytes are the reference's is for the conformance tests.
#include "switchyard/sorting_router.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cuda/sorting_router.h"
#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "tests/routing_inputs.h"
#include "tests/simt/device_array.h"
#include "tests/simt/executor.h"
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
    router_.route(inputs(), result(with_counts), permutation(offsets), workspace_.bytes(), stream);
  }

  /// By another implementation, which trusts its arguments.
  void route_by(const SortingRouter::Implementation& other) {
    other.route(inputs(), result(true), permutation(nullptr), workspace_.bytes(), {});
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
  [[nodiscard]] RoutingInputs inputs() const {
    RoutingInputs inputs;
    inputs.logits = MatrixView<const float>(logits_.data(), num_tokens_, num_experts());
    return inputs;
  }
  [[nodiscard]] RoutingResult result(bool with_counts) {
    RoutingResult result;
    result.expert_ids = ids_.matrix(num_tokens_, top_k());
    result.gate_weights = weights_.matrix(num_tokens_, top_k());
    if (with_counts) result.tokens_per_expert = {counts_.data(), num_experts()};
    return result;
  }
  [[nodiscard]] Permutation permutation(int64_t* offsets) {
    return {{tokens_per_expert_.data(), num_experts()},
            {offsets != nullptr ? offsets : expert_offsets_.data(), num_experts() + 1},
            {row_to_assignment_.data(), sizes_.num_rows},
            assignment_to_row_.matrix(num_tokens_, top_k()),
            {block_experts_.data(), sizes_.num_blocks},
            totals_.data()};
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

/// Launches of one call, whose results are those of the reference.
int64_t launches(const SortingRouter& router, int64_t num_tokens, bool with_counts) {
  SortedRouting batch(router, num_tokens);
  batch.fill(1);
  const int64_t before = simt::statistics().launches;
  batch.route(with_counts);
  synchronize(Backend::kCuda);
  batch.expect_sorted(1);
  return simt::statistics().launches - before;
}

TEST(CudaSortingRouter, UpTo8192AssignmentsTakeOneLaunch) {
  const SortingRouter router(kRouting, kSorting, Backend::kCuda);
  for (const int64_t num_tokens : {0, 1, 16, 17, 100, 600, 1365}) {
    EXPECT_EQ(launches(router, num_tokens, true), 1) << num_tokens;
    EXPECT_EQ(launches(router, num_tokens, false), 1) << num_tokens;
  }
  EXPECT_EQ(launches(router, 1366, true), 5);  // clears counts, routes, sorts 8196 assignments
  for (const int32_t num_experts : {1, 33, 65, 129, 257, 513, 1025, 2048}) {
    const SortingRouter other({.num_experts = num_experts, .top_k = 1},
                              {.num_experts = num_experts, .top_k = 1}, Backend::kCuda);
    EXPECT_EQ(launches(other, 50, true), 1) << num_experts;
  }
}

TEST(CudaSortingRouter, DropsByWeightTakeSeveralLaunchesWhereThereMayBeAny) {
  PermutationConfig sorting = kSorting;
  sorting.capacity = {.mode = ExpertCapacity::Mode::kFactor, .factor = 1.0};
  EXPECT_EQ(launches(SortingRouter(kRouting, sorting, Backend::kCuda), 50, false), 1);
  sorting.capacity.drop_policy = DropPolicy::kWeight;
  EXPECT_EQ(launches(SortingRouter(kRouting, sorting, Backend::kCuda), 50, false), 6);
  sorting.capacity.factor = 40.0;
  EXPECT_EQ(launches(SortingRouter(kRouting, sorting, Backend::kCuda), 50, false), 1);
}

TEST(CudaSortingRouter, LargeClustersAreUsedOnlyWhereTheDeviceRunsThem) {
  const simt::ScopedSettings scope;
  for (const int most : {16, 8}) {
    simt::settings().max_cluster_blocks = most;
    const SortingRouter router(kRouting, kSorting, Backend::kCuda);
    const int64_t before = simt::statistics().blocks;
    EXPECT_EQ(launches(router, 1365, true), 1);
    EXPECT_EQ(simt::statistics().blocks - before, most);
  }
}

/// A shortcut is for several tokens a warp of the cluster, of which there are 16 a block.
TEST(CudaSortingRouter, ManyTokensTakeAShortcutInOneLaunch) {
  const auto ran = [](const std::string& kernel) {
    return simt::running_kernel().find("::" + kernel + "<") != std::string::npos;
  };
  const simt::ScopedSettings scope;
  for (const int most : {16, 8}) {
    simt::settings().max_cluster_blocks = most;
    const int64_t enough = int64_t{2 * 16} * most;
    for (const int32_t num_experts : {8, 40, 600}) {
      const SortingRouter router({.num_experts = num_experts, .top_k = 2},
                                 {.num_experts = num_experts, .top_k = 2}, Backend::kCuda);
      EXPECT_EQ(launches(router, enough / 2, true), 1);
      EXPECT_TRUE(ran("route_and_sort_kernel")) << simt::running_kernel();
      EXPECT_EQ(launches(router, enough, true), 1);
      EXPECT_TRUE(ran(num_experts == 8    ? "threads_and_sort_kernel"
                      : num_experts == 40 ? "lanes_and_sort_kernel"
                                          : "route_and_sort_kernel"))
          << simt::running_kernel();
    }
  }
}

TEST(CudaSortingRouter, WithoutClustersAFewTokensTakeOneLaunch) {
  const simt::ScopedSettings scope;
  const auto expect_launches = [] {
    const SortingRouter router(kRouting, kSorting, Backend::kCuda);
    EXPECT_EQ(launches(router, 16, true), 1);
    EXPECT_EQ(launches(router, 17, false), 2);
    EXPECT_EQ(launches(router, 1365, true), 3);  // clears counts, routes, sorts
    EXPECT_EQ(launches(router, 1366, true), 5);
  };
  {
    SCOPED_TRACE("an older device");
    simt::settings().compute_capability = 80;
    expect_launches();
  }
  {
    SCOPED_TRACE("code for older devices");
    simt::settings().compute_capability = 100;
    simt::settings().compiled_for = 80;
    expect_launches();
  }
  {
    SCOPED_TRACE("a part of a device");
    simt::settings() = simt::Settings{};
    simt::settings().max_cluster_blocks = 4;
    expect_launches();
  }
}

TEST(CudaSortingRouter, SeveralLaunchesGiveTheSameBytes) {
  for (const int64_t num_tokens : {16, 100}) {
    const SortingRouter router(kRouting, kSorting, Backend::kCuda);
    const auto several = cuda::make_cuda_sorting_router(Router(kRouting, Backend::kCuda),
                                                        Permuter(kSorting, Backend::kCuda),
                                                        cuda::SortingLaunches::kSeveral);
    SortedRouting batch(router, num_tokens);
    batch.fill(3);
    const int64_t before = simt::statistics().launches;
    batch.route_by(*several);
    EXPECT_EQ(simt::statistics().launches - before, 3);
    synchronize(Backend::kCuda);
    batch.expect_sorted(3);
  }
}

TEST(CudaSortingRouter, Contract7_AGraphSortsWhatIsThereWhenItRuns) {
  const SortingRouter router(kRouting, kSorting, Backend::kCuda);
  for (const int64_t num_tokens : {5, 200, 1400}) {
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
  SortedRouting third(router, 1400);
  first.fill(1);
  second.fill(2);
  third.fill(3);
  const Stream streams[3];
  for (int round = 0; round < 3; ++round) {
    first.route(true, streams[0].handle);
    second.route(true, streams[1].handle);
    third.route(true, streams[2].handle);
  }
  require_success(cudaDeviceSynchronize());
  first.expect_sorted(1);
  second.expect_sorted(2);
  third.expect_sorted(3);
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
