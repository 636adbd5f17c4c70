// Routing and sorting in one call equals one after the other by the reference.
#include "switchyard/sorting_router.h"

#include <gtest/gtest.h>

#include <array>
#include <ostream>

#include "switchyard/errors.h"
#include "tests/backend_variants.h"
#include "tests/guarded.h"
#include "tests/routing_case.h"

namespace switchyard::test {
namespace {

/// A permutation's arrays between guards.
class SortedArrays {
 public:
  SortedArrays(const PermutationConfig& config, const PermutationSizes& sizes, int64_t num_tokens)
      : tokens_per_expert_(vector<int64_t>(config.num_local())),
        expert_offsets_(vector<int64_t>(config.num_local() + 1)),
        row_to_assignment_(vector<int64_t>(sizes.num_rows)),
        assignment_to_row_(num_tokens, config.top_k, config.top_k + 3),
        block_experts_(vector<int32_t>(sizes.num_blocks)),
        totals_(vector<PermutationTotals>(1)) {}

  [[nodiscard]] Permutation view() {
    return {tokens_per_expert_.vector(), expert_offsets_.vector(), row_to_assignment_.vector(),
            assignment_to_row_.matrix(), block_experts_.vector(),  totals_.vector().data};
  }
  [[nodiscard]] bool intact() const {
    return tokens_per_expert_.intact() && expert_offsets_.intact() && row_to_assignment_.intact() &&
           assignment_to_row_.intact() && block_experts_.intact() && totals_.intact();
  }
  [[nodiscard]] bool untouched() const {
    return tokens_per_expert_.untouched() && expert_offsets_.untouched() &&
           row_to_assignment_.untouched() && assignment_to_row_.untouched() &&
           block_experts_.untouched() && totals_.untouched();
  }
  /// Compares all elements.
  void expect_equal(const SortedArrays& expected) const {
    EXPECT_EQ(tokens_per_expert_.dense(), expected.tokens_per_expert_.dense());
    EXPECT_EQ(expert_offsets_.dense(), expected.expert_offsets_.dense());
    EXPECT_EQ(row_to_assignment_.dense(), expected.row_to_assignment_.dense());
    EXPECT_EQ(assignment_to_row_.dense(), expected.assignment_to_row_.dense());
    EXPECT_EQ(block_experts_.dense(), expected.block_experts_.dense());
    EXPECT_EQ(totals_.dense(), expected.totals_.dense());
  }

 private:
  template <typename T>
  static Guarded<T> vector(int64_t size) {
    return {1, size, size};
  }

  Guarded<int64_t> tokens_per_expert_;
  Guarded<int64_t> expert_offsets_;
  Guarded<int64_t> row_to_assignment_;
  Guarded<int64_t> assignment_to_row_;
  Guarded<int32_t> block_experts_;
  Guarded<PermutationTotals> totals_;
};

struct Setting {
  const char* name;
  RouterConfig routing;
  PermutationConfig sorting{};  ///< without experts and slots
};

void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.name; }

PermutationConfig sorting_of(const Setting& setting) {
  PermutationConfig config = setting.sorting;
  config.num_experts = setting.routing.num_expert_ids();
  config.top_k = setting.routing.num_slots();
  return config;
}

constexpr ExpertCapacity kByPosition{.mode = ExpertCapacity::Mode::kFactor, .factor = 0.8};
constexpr ExpertCapacity kByWeight{
    .mode = ExpertCapacity::Mode::kFactor, .factor = 0.8, .drop_policy = DropPolicy::kWeight};

constexpr Setting kSettings[] = {
    {"OneExpert", {.num_experts = 1, .top_k = 1}},
    {"Mixtral", {.num_experts = 8, .top_k = 2}, {.block_rows = 16}},
    {"SharedExperts", {.num_experts = 60, .top_k = 4, .num_shared_experts = 4}, {.block_rows = 64}},
    {"ByPosition", {.num_experts = 128, .top_k = 8}, {.capacity = kByPosition}},
    {"ByWeight", {.num_experts = 128, .top_k = 8, .renormalize = false}, {.capacity = kByWeight}},
    {"Groups",
     {.num_experts = 256,
      .top_k = 8,
      .score_function = ScoreFunction::kSigmoid,
      .num_groups = 8,
      .top_groups = 4,
      .group_score = GroupScore::kTop2Sum,
      .num_shared_experts = 1},
     {.block_rows = 128}},
    {"LocalExperts",
     {.num_experts = 512, .top_k = 10},
     {.first_local_expert = 128, .num_local_experts = 64}},
    {"NoLocalExperts", {.num_experts = 40, .top_k = 3}, {.num_local_experts = 0}},
    {"Largest", {.num_experts = 2048, .top_k = 64, .num_shared_experts = 64}},
};

class SortingRouters : public ::testing::TestWithParam<Setting> {};

/// Compares every backend's bytes with those of the reference's routing and then sorting.
void expect_bytes_of_both(const PermutationConfig& sorting, const RoutingCase& c) {
  const Router router(c.config, Backend::kReference);
  const Permuter permuter(sorting, Backend::kReference);
  const RoutingBatch batch(c);
  const PermutationSizes sizes = permuter.sizes(c.num_tokens);
  SortedArrays expected_arrays(sorting, sizes, c.num_tokens);
  const RoutedBatch expected = route_guarded(
      c, batch.inputs(), permuter.workspace_bytes(c.num_tokens),
      [&](const RoutingResult& result, std::span<std::byte> workspace) {
        router.route(batch.inputs(), result);
        permuter.sort(result.expert_ids, result.gate_weights, expected_arrays.view(), workspace);
      });
  for (const BackendVariant& variant : backend_variants()) {
    SCOPED_TRACE(variant.name + ", " + describe(c));
    const ScopedCpuTarget target(variant.target);
    const SortingRouter both(c.config, sorting, variant.backend, variant.threads);
    SortedArrays arrays(sorting, sizes, c.num_tokens);
    const RoutedBatch actual =
        route_guarded(c, batch.inputs(), both.workspace_bytes(c.num_tokens),
                      [&](const RoutingResult& result, std::span<std::byte> workspace) {
                        both.route(batch.inputs(), result, arrays.view(), workspace);
                      });
    EXPECT_EQ(difference(expected, actual), "");
    EXPECT_TRUE(arrays.intact());
    arrays.expect_equal(expected_arrays);
  }
}

TEST_P(SortingRouters, GiveTheBytesOfRoutingAndThenSorting) {
  for (const int64_t num_tokens : {0, 1, 7, 16, 17, 90, 270}) {
    expect_bytes_of_both(
        sorting_of(GetParam()),
        {.config = GetParam().routing,
         .num_tokens = num_tokens,
         .distribution = Distribution::kHeavyTies,
         .weight_dtype = num_tokens % 2 == 0 ? DataType::kFloat32 : DataType::kBFloat16,
         .with_token_mask = num_tokens > 7,
         .output_padding = num_tokens % 3,
         .with_losses = num_tokens == 16 || num_tokens == 270});
  }
}

INSTANTIATE_TEST_SUITE_P(Settings, SortingRouters, ::testing::ValuesIn(kSettings),
                         [](const auto& setting) { return setting.param.name; });

class SortingRouterInputs : public ::testing::TestWithParam<Distribution> {};

TEST_P(SortingRouterInputs, GiveTheBytesOfRoutingAndThenSorting) {
  const Setting small{"",
                      {.num_experts = 37, .top_k = 5, .num_shared_experts = 1},
                      {.block_rows = 4, .capacity = kByPosition}};
  const Setting biased{"",
                       {.num_experts = 256,
                        .top_k = 8,
                        .score_function = ScoreFunction::kSigmoid,
                        .routed_scaling_factor = 2.5f},
                       {.block_rows = 16}};
  for (const DataType dtype : kAllDataTypes) {
    expect_bytes_of_both(sorting_of(small), {.config = small.routing,
                                             .num_tokens = 67,
                                             .distribution = GetParam(),
                                             .dtype = dtype,
                                             .with_expert_mask = true,
                                             .logits_padding = 3,
                                             .output_padding = 1});
    expect_bytes_of_both(sorting_of(biased), {.config = biased.routing,
                                              .num_tokens = 35,
                                              .distribution = GetParam(),
                                              .dtype = dtype,
                                              .weight_dtype = dtype,
                                              .with_bias = true,
                                              .with_token_mask = true,
                                              .with_losses = false,
                                              .with_counts = false});
  }
}

INSTANTIATE_TEST_SUITE_P(Distributions, SortingRouterInputs, ::testing::ValuesIn(kAllDistributions),
                         [](const auto& of) { return std::string(name_of(of.param)); });

TEST(SortingRouter, BothSidesOf8192AssignmentsGiveTheSameBytesAsTheReference) {
  for (const int64_t num_tokens : {1024, 1025}) {
    const Setting setting{"", {.num_experts = 24, .top_k = 7, .num_shared_experts = 1}};
    expect_bytes_of_both(sorting_of(setting), {.config = setting.routing,
                                               .num_tokens = num_tokens,
                                               .with_token_mask = true,
                                               .with_losses = num_tokens == 1024});
  }
}

/// Several rows a warp even of the largest cluster, which may then go a shorter way.
TEST(SortingRouter, ManyRenormalisedRowsGiveTheSameBytesAsTheReference) {
  struct Shape {
    int32_t num_experts;
    int32_t top_k;
    int64_t num_tokens;
  };
  const auto expect_bytes = [](const Shape& shape, DataType dtype, Distribution distribution) {
    const Setting setting{
        "", {.num_experts = shape.num_experts, .top_k = shape.top_k}, {.block_rows = 8}};
    expect_bytes_of_both(sorting_of(setting), {.config = setting.routing,
                                               .num_tokens = shape.num_tokens,
                                               .distribution = distribution,
                                               .dtype = dtype,
                                               .weight_dtype = dtype,
                                               .with_losses = false,
                                               .with_counts = dtype == DataType::kFloat32});
  };
  for (const Shape shape :
       {Shape{8, 2, 513}, Shape{16, 4, 700}, Shape{20, 8, 515}, Shape{64, 6, 1024}}) {
    expect_bytes(shape, DataType::kFloat32, Distribution::kMixedSpecial);
    expect_bytes(shape, DataType::kBFloat16, Distribution::kHeavyTies);
  }
  expect_bytes({128, 1, 700}, DataType::kBFloat16, Distribution::kMixedSpecial);
  expect_bytes({512, 8, 520}, DataType::kFloat32, Distribution::kNormal);
}

/// Blocks that take up to 32 tokens each note their choices while they route; both sides of where
/// there is one more block, or one more token than that.
TEST(SortingRouter, FewTokensGiveTheSameBytesAsTheReference) {
  const ExpertCapacity none_kept{.mode = ExpertCapacity::Mode::kFactor, .factor = 0.01};
  const Setting settings[] = {
      {"", {.num_experts = 256, .top_k = 8}},
      {"", {.num_experts = 300, .top_k = 5}, {.block_rows = 7, .capacity = kByPosition}},
      {"", {.num_experts = 16, .top_k = 2}, {.block_rows = 256, .capacity = none_kept}},
      {"",
       {.num_experts = 512, .top_k = 10},
       {.block_rows = 3, .first_local_expert = 130, .num_local_experts = 257}},
      {"",
       {.num_experts = 64,
        .top_k = 6,
        .score_function = ScoreFunction::kSqrtSoftplus,
        .num_shared_experts = 2},
       {.block_rows = 100}}};
  for (const Setting& setting : settings) {
    for (const int64_t num_tokens : {1, 8, 9, 16, 17, 64, 128, 129, 256, 257}) {
      const bool odd = num_tokens % 2 == 1;
      expect_bytes_of_both(sorting_of(setting), {.config = setting.routing,
                                                 .num_tokens = num_tokens,
                                                 .distribution = odd ? Distribution::kMixedSpecial
                                                                     : Distribution::kNormal,
                                                 .with_token_mask = odd,
                                                 .with_losses = false,
                                                 .with_counts = odd});
    }
  }
  const Setting without_shortcut{
      "",
      {.num_experts = 40, .top_k = 4, .score_function = ScoreFunction::kSigmoid},
      {.block_rows = 8}};
  for (const int64_t num_tokens : {256, 512, 513}) {
    expect_bytes_of_both(sorting_of(without_shortcut),
                         {.config = without_shortcut.routing,
                          .num_tokens = num_tokens,
                          .distribution = Distribution::kBFloat16Rounded,
                          .dtype = DataType::kBFloat16,
                          .with_bias = true});
  }
}

/// Every token takes the same experts.
TEST(SortingRouter, FewTokensMayAllTakeTheSameExperts) {
  const Setting setting{"", {.num_experts = 128, .top_k = 8}, {.block_rows = 16}};
  for (const int64_t num_tokens : {16, 256}) {
    expect_bytes_of_both(sorting_of(setting), {.config = setting.routing,
                                               .num_tokens = num_tokens,
                                               .distribution = Distribution::kDescending});
  }
}

TEST(SortingRouter, RowsWithoutAnAssignmentAreFilled) {
  const Setting setting{"", {.num_experts = 160, .top_k = 8}, {.block_rows = 256}};
  for (const int64_t num_tokens : {1, 21}) {
    expect_bytes_of_both(sorting_of(setting),
                         {.config = setting.routing, .num_tokens = num_tokens});
  }
}

TEST(SortingRouter, ResidentExpertsArePreferredBeforeSorting) {
  const Setting setting{"", {.num_experts = 48, .top_k = 4}, {.block_rows = 8}};
  for (const int64_t num_tokens : {5, 60}) {
    expect_bytes_of_both(sorting_of(setting), {.config = setting.routing,
                                               .num_tokens = num_tokens,
                                               .percent_resident = 50,
                                               .residency = {.bonus = 0.5f}});
  }
}

TEST(SortingRouter, ConfigsThatDisagreeAreRefused) {
  const auto refusal = [](int32_t num_experts, int32_t top_k) -> std::string {
    try {
      const SortingRouter router({.num_experts = 8, .top_k = 2, .num_shared_experts = 1},
                                 {.num_experts = num_experts, .top_k = top_k},
                                 backend_variants().front().backend);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal(9, 3), "");
  EXPECT_EQ(refusal(8, 3), "permutation.num_experts is 8, must be the router's 9 expert ids");
  EXPECT_EQ(refusal(9, 2), "permutation.top_k is 2, must be the router's 3 slots");
}

TEST(SortingRouter, Contract10_NothingIsWrittenWhenThePermutationIsRefused) {
  const Setting setting{"", {.num_experts = 8, .top_k = 2}};
  const PermutationConfig sorting = sorting_of(setting);
  const SortingRouter both(setting.routing, sorting, backend_variants().front().backend);
  const RoutingCase c{.config = setting.routing, .num_tokens = 4};
  const RoutingBatch batch(c);
  SortedArrays arrays(sorting, both.permuter().sizes(5), 5);
  Guarded<int32_t> ids(4, 2, 2);
  Guarded<float> weights(4, 2, 2);
  RoutingResult result;
  result.expert_ids = ids.matrix();
  result.gate_weights = weights.matrix();
  EXPECT_THROW(both.route(batch.inputs(), result, arrays.view()), InvalidArgument);
  EXPECT_TRUE(ids.untouched() && weights.untouched() && arrays.untouched());
}

}  // namespace
}  // namespace switchyard::test
