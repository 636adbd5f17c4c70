// What the front door refuses: the message names argument, value and limit; nothing is written.
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "switchyard/errors.h"
#include "switchyard/permutation.h"
#include "tests/permutation_case.h"

namespace switchyard::test {
namespace {

std::string refusal_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(PermutationConfig, Contract10_RefusalNamesFieldValueAndLimit) {
  const auto refusal = [](const PermutationConfig& config) {
    return refusal_of([&] { validate(config); });
  };
  using Mode = ExpertCapacity::Mode;
  EXPECT_EQ(refusal({.num_experts = 0, .top_k = 1}), "num_experts is 0, must be in [1, 4096]");
  EXPECT_EQ(refusal({.num_experts = 4097, .top_k = 1}),
            "num_experts is 4097, must be in [1, 4096]");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 0}), "top_k is 0, must be in [1, 128]");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 129}), "top_k is 129, must be in [1, 128]");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 1, .block_rows = 257}),
            "block_rows is 257, must be in [1, 256]");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 1, .capacity = {.mode = Mode::kFixed, .rows = -1}}),
            "capacity.rows is -1, must be 0 or more");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 1, .capacity = {.mode = Mode::kFactor}}),
            "capacity.factor is 0, must be finite and above 0");
  EXPECT_EQ(refusal({.num_experts = 4,
                     .top_k = 1,
                     .capacity = {.mode = Mode::kFactor,
                                  .factor = std::numeric_limits<double>::infinity()}}),
            "capacity.factor is inf, must be finite and above 0");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 1, .capacity = {.mode = static_cast<Mode>(7)}}),
            "capacity.mode is 7, must be in [0, 2]");
  EXPECT_EQ(
      refusal(
          {.num_experts = 4, .top_k = 1, .capacity = {.drop_policy = static_cast<DropPolicy>(2)}}),
      "capacity.drop_policy is 2, must be in [0, 1]");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 1, .first_local_expert = 5}),
            "first_local_expert is 5, must be in [0, 4]");
  EXPECT_EQ(
      refusal({.num_experts = 4, .top_k = 1, .first_local_expert = 2, .num_local_experts = 3}),
      "num_local_experts is 3, must be in [-1, 2]");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 1, .first_local_expert = 4}), "accepted");
  EXPECT_EQ(refusal({.num_experts = 4, .top_k = 8, .num_local_experts = 0}), "accepted");
}

TEST(PermutationConfig, Contract10_CapacityRowsRefusesWhatNoBatchHas) {
  EXPECT_EQ(refusal_of([] { capacity_rows({}, -1, 1, 1); }),
            "num_tokens is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal_of([] { capacity_rows({}, 1, 0, 1); }), "top_k is 0, must be in [1, 128]");
  EXPECT_EQ(refusal_of([] { capacity_rows({}, 1, 1, 0); }),
            "num_experts is 0, must be in [1, 4096]");
}

TEST(PermuterConstruction, RefusesBeforeItBuilds) {
  EXPECT_EQ(refusal_of([] { Permuter({.num_experts = 0, .top_k = 1}); }),
            "num_experts is 0, must be in [1, 4096]");
  EXPECT_EQ(refusal_of([] {
              Permuter({.num_experts = 1, .top_k = 1}, Backend::kCpu, {.num_threads = -1});
            }),
            "num_threads is -1, must be 0 or more");
}

/// A batch of two tokens, and room for everything that three calls write.
class PermuterRefusal : public testing::TestWithParam<Backend> {
 protected:
  PermuterRefusal()
      : batch_(make_case({.num_experts = 3,
                          .top_k = 2,
                          .capacity = {.mode = ExpertCapacity::Mode::kFixed,
                                       .rows = 2,
                                       .drop_policy = DropPolicy::kWeight}},
                         {{0, 1}, {2, -1}})),
        permuter_(batch_.config, GetParam(), {.num_threads = 1}),
        out_(permuter_, batch_),
        view_(out_.view()) {}

  std::string refusal_of_sort(MatrixView<const int32_t> ids, ConstTensorView weights) {
    std::string text = refusal_of([&] { permuter_.sort(ids, weights, view_, workspace_); });
    EXPECT_TRUE(out_.untouched()) << text;
    return text;
  }

  PermutationCase batch_;
  Permuter permuter_;
  GuardedPermutation out_;
  Permutation view_;
  std::span<std::byte> workspace_ = out_.workspace();
};

TEST_P(PermuterRefusal, Contract10_UnknownIdNamesTokenSlotAndId) {
  batch_.ids = {0, 1, 2, 3};
  EXPECT_EQ(refusal_of_sort(batch_.expert_ids(), batch_.gate_weights()),
            "expert_ids of token 1, slot 1 is 3, must be in [-1, 2]");
  batch_.ids = {0, -2, 2, 3};
  EXPECT_EQ(refusal_of_sort(batch_.expert_ids(), batch_.gate_weights()),
            "expert_ids of token 0, slot 1 is -2, must be in [-1, 2]");
  batch_.ids = {0, 1, std::numeric_limits<int32_t>::max(), 0};
  EXPECT_EQ(refusal_of_sort(batch_.expert_ids(), batch_.gate_weights()),
            "expert_ids of token 1, slot 0 is 2147483647, must be in [-1, 2]");
  batch_.ids = {0, 1, std::numeric_limits<int32_t>::min(), 0};
  EXPECT_EQ(refusal_of_sort(batch_.expert_ids(), batch_.gate_weights()),
            "expert_ids of token 1, slot 0 is -2147483648, must be in [-1, 2]");
}

TEST_P(PermuterRefusal, Contract10_SortNamesTheShapeThatDisagrees) {
  const auto ids = batch_.expert_ids();
  const auto weights = batch_.gate_weights();
  EXPECT_EQ(refusal_of_sort({ids.data, 2, 3}, weights), "expert_ids has 3 columns, must have 2");
  EXPECT_EQ(refusal_of_sort({ids.data, 2, 2, 1}, weights),
            "expert_ids has row_stride 1, must be at least its 2 columns");
  EXPECT_EQ(refusal_of_sort({nullptr, 2, 2}, weights), "expert_ids is a null pointer");
  EXPECT_EQ(refusal_of_sort({ids.data, -1, 2}, weights),
            "expert_ids rows is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal_of_sort(ids, {}), "gate_weights has 0 rows, must have 2 to drop by weight");
  EXPECT_EQ(refusal_of_sort(ids, {weights.data, DataType::kFloat32, 1, 2, 2}),
            "gate_weights has 1 rows, must have 2");
  EXPECT_EQ(refusal_of_sort(ids, {weights.data, DataType::kFloat16, 2, 2, 2}),
            "gate_weights are F16, must be F32 or BF16");
  EXPECT_EQ(refusal_of_sort({ids.data, 1, 2}, {weights.data, DataType::kFloat32, 1, 2, 2}),
            "row_to_assignment has 4 elements, must have 2");
}

TEST_P(PermuterRefusal, Contract10_SortNamesTheOutputThatIsTooSmall) {
  const auto refusal_with = [&](auto change) {
    Permutation changed = out_.view();
    change(changed);
    view_ = changed;
    return refusal_of_sort(batch_.expert_ids(), batch_.gate_weights());
  };
  EXPECT_EQ(refusal_with([](Permutation& out) { out.tokens_per_expert.size = 2; }),
            "tokens_per_expert has 2 elements, must have 3");
  EXPECT_EQ(refusal_with([](Permutation& out) { out.expert_offsets.size = 3; }),
            "expert_offsets has 3 elements, must have 4");
  EXPECT_EQ(refusal_with([](Permutation& out) { out.assignment_to_row.cols = 1; }),
            "assignment_to_row has 1 columns, must have 2");
  EXPECT_EQ(refusal_with([](Permutation& out) { out.block_experts.data = nullptr; }),
            "block_experts is a null pointer");
  EXPECT_EQ(refusal_with([](Permutation& out) { out.totals = nullptr; }),
            "totals is a null pointer");
}

TEST_P(PermuterRefusal, Contract10_SortNamesTheWorkspaceItNeeds) {
  const int64_t needed = permuter_.workspace_bytes(2);
  if (needed == 0) return;  // this backend takes none
  workspace_ = workspace_.first(static_cast<size_t>(needed - 1));
  EXPECT_EQ(refusal_of_sort(batch_.expert_ids(), batch_.gate_weights()),
            "workspace holds " + std::to_string(needed - 1) + " bytes, must hold " +
                std::to_string(needed));
}

TEST_P(PermuterRefusal, Contract10_MovesNameTheShapeThatDisagrees) {
  permuter_.sort(batch_.expert_ids(), batch_.gate_weights(), view_, workspace_);
  const std::vector<std::byte> tokens(2 * 8);
  Guarded<std::byte> sorted(4, 8, 8);
  const auto permute = [&](MatrixView<const std::byte> from, MatrixView<std::byte> to) {
    std::string text = refusal_of([&] { permuter_.permute(view_, from, to); });
    EXPECT_TRUE(sorted.untouched()) << text;
    return text;
  };
  const auto to = sorted.matrix();
  EXPECT_EQ(permute({tokens.data(), 2, 8}, {to.data, 3, 8}), "sorted has 3 rows, must have 4");
  EXPECT_EQ(permute({tokens.data(), 2, 8}, {to.data, 4, 7}), "sorted has 7 columns, must have 8");
  EXPECT_EQ(permute({tokens.data(), 2, -8}, to), "tokens has -8 columns, must have 0 or more");
  EXPECT_EQ(permute({tokens.data(), 1, 8}, to), "row_to_assignment has 4 elements, must have 2");

  const std::vector<float> answers(4 * 2);
  Guarded<float> combined(2, 2, 2);
  const auto unpermute = [&](ConstTensorView from, ConstTensorView weights, TensorView into) {
    std::string text = refusal_of([&] { permuter_.unpermute(view_, from, weights, into); });
    EXPECT_TRUE(combined.untouched()) << text;
    return text;
  };
  const ConstTensorView from{answers.data(), DataType::kFloat32, 4, 2, 2};
  const TensorView into = combined.matrix();
  EXPECT_EQ(unpermute({answers.data(), DataType::kFloat32, 3, 2, 2}, {}, into),
            "sorted has 3 rows, must have 4");
  EXPECT_EQ(unpermute({answers.data(), static_cast<DataType>(9), 4, 2, 2}, {}, into),
            "sorted have an unknown element type, 9");
  EXPECT_EQ(unpermute(from, {answers.data(), DataType::kFloat32, 2, 1, 1}, into),
            "gate_weights has 1 columns, must have 2");
  EXPECT_EQ(unpermute(from, {}, {into.data, DataType::kFloat32, 2, 2, 1}),
            "tokens has row_stride 1, must be at least its 2 columns");
}

TEST_P(PermuterRefusal, Contract10_MovesByAddressNameTheShapeThatDisagrees) {
  const std::vector<std::byte> tokens(2 * 8);
  Guarded<std::byte> memory(4, 8, 8);
  std::byte* const first = memory.matrix().data;
  std::byte* const addresses[] = {first, first + 8, first + 16, nullptr};
  const auto permute = [&](MatrixView<const std::byte> from, MatrixView<std::byte* const> to) {
    std::string text = refusal_of([&] { permuter_.permute_to(from, to); });
    EXPECT_TRUE(memory.untouched()) << text;
    return text;
  };
  EXPECT_EQ(permute({tokens.data(), 2, 8}, {addresses, 1, 2}), "rows has 1 rows, must have 2");
  EXPECT_EQ(permute({tokens.data(), 2, 8}, {addresses, 2, 1}), "rows has 1 columns, must have 2");
  EXPECT_EQ(permute({tokens.data(), 2, 8}, {addresses, 2, 2, 1}),
            "rows has row_stride 1, must be at least its 2 columns");
  EXPECT_EQ(permute({tokens.data(), 2, 8}, {nullptr, 2, 2}), "rows is a null pointer");
  EXPECT_EQ(permute({nullptr, 2, 8}, {addresses, 2, 2}), "tokens is a null pointer");
  EXPECT_EQ(permute({tokens.data(), 2, -8}, {addresses, 2, 2}),
            "tokens has -8 columns, must have 0 or more");
  EXPECT_EQ(permute({tokens.data(), -1, 8}, {addresses, 2, 2}),
            "tokens rows is -1, must be in [0, 281474976710656]");

  Guarded<float> combined(2, 2, 2);
  const auto unpermute = [&](MatrixView<const std::byte* const> from, DataType dtype,
                             ConstTensorView weights, TensorView into) {
    std::string text = refusal_of([&] { permuter_.unpermute_from(from, dtype, weights, into); });
    EXPECT_TRUE(combined.untouched()) << text;
    return text;
  };
  const MatrixView<const std::byte* const> from(addresses, 2, 2);
  const TensorView into = combined.matrix();
  EXPECT_EQ(unpermute({addresses, 1, 2}, DataType::kFloat32, {}, into),
            "rows has 1 rows, must have 2");
  EXPECT_EQ(unpermute(from, static_cast<DataType>(9), {}, into),
            "rows have an unknown element type, 9");
  EXPECT_EQ(unpermute(from, DataType::kFloat32, {}, {into.data, static_cast<DataType>(9), 2, 2, 2}),
            "tokens have an unknown element type, 9");
  EXPECT_EQ(unpermute(from, DataType::kFloat32, {tokens.data(), DataType::kFloat32, 2, 1, 1}, into),
            "gate_weights has 1 columns, must have 2");
  EXPECT_EQ(unpermute(from, DataType::kFloat32, {}, {nullptr, DataType::kFloat32, 2, 2, 2}),
            "tokens is a null pointer");
}

TEST_P(PermuterRefusal, SizesAndWorkspaceRefuseNegativeTokens) {
  EXPECT_EQ(refusal_of([&] { (void)permuter_.sizes(-1); }),
            "num_tokens is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal_of([&] { (void)permuter_.workspace_bytes(-1); }),
            "max_tokens is -1, must be in [0, 281474976710656]");
}

INSTANTIATE_TEST_SUITE_P(Backends, PermuterRefusal,
                         testing::Values(Backend::kReference, Backend::kCpu),
                         [](const auto& backend) { return std::string(name_of(backend.param)); });

}  // namespace
}  // namespace switchyard::test
