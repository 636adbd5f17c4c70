// Moving rows: every backend, instruction set and thread count against the reference and by hand.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <memory>

#include "switchyard/permutation.h"
#include "tests/backend_variants.h"
#include "tests/permutation_case.h"
#include "tests/row_elements.h"

namespace switchyard::test {
namespace {

/// A sorted batch that later calls can use.
struct Sorted {
  Sorted(const PermuterVariant& variant, const PermutationCase& batch)
      : permuter(make_route(variant, batch.config)), out(*permuter, batch) {
    permuter->sort(batch.expert_ids(), batch.gate_weights(), out.view(), out.workspace());
  }
  std::unique_ptr<PermuterRoute> permuter;
  GuardedPermutation out;
};

class PermutationRows : public testing::TestWithParam<PermuterVariant> {
 protected:
  void SetUp() override {
    const int64_t target = GetParam().target;
    if (target != 0) target_ = std::make_unique<ScopedCpuTarget>(target);
  }

 private:
  std::unique_ptr<ScopedCpuTarget> target_;
};

std::vector<std::byte> permute(const PermuterVariant& variant, const PermutationCase& batch,
                               MatrixView<const std::byte> tokens, int64_t sorted_padding) {
  Sorted sorted(variant, batch);
  const int64_t rows = sorted.permuter->sizes(batch.num_tokens).num_rows;
  Guarded<std::byte> moved(rows, tokens.cols, tokens.cols + sorted_padding);
  sorted.permuter->permute(sorted.out.view(), tokens, moved.matrix());
  EXPECT_TRUE(moved.intact()) << "written outside of the output";
  EXPECT_TRUE(sorted.out.intact());
  return moved.dense();
}

TEST_P(PermutationRows, PaddingRowsBecomeZeroAndRowsPastTheEndStay) {
  const auto batch =
      make_case({.num_experts = 2, .top_k = 2, .block_rows = 2}, {{0, 1}, {-1, -1}, {0, 0}});
  const std::vector<std::byte> tokens{std::byte{1}, std::byte{2}, std::byte{3}};
  const auto moved = permute(GetParam(), batch, {tokens.data(), 3, 1}, 0);
  constexpr std::byte kUntouched{0xa5};
  EXPECT_EQ(moved, (std::vector<std::byte>{std::byte{1}, std::byte{3}, std::byte{3}, std::byte{0},
                                           std::byte{1}, std::byte{0}, kUntouched, kUntouched}));
}

TEST_P(PermutationRows, Contract4_PermuteMovesTheReferencesBytes) {
  uint64_t seed = 0;
  for (const int64_t row_bytes : {0, 1, 2, 3, 16, 63, 64, 65, 1000}) {
    for (const int64_t num_tokens : {0, 1, 7, 130}) {
      RandomStream random(++seed);
      SCOPED_TRACE(testing::Message() << "seed " << seed << ", row_bytes " << row_bytes);
      const PermutationConfig config{
          .num_experts = 9,
          .top_k = 5,
          .block_rows = one_of(random, {1, 4}),
          .capacity = {.mode = ExpertCapacity::Mode::kFactor, .factor = 1.0},
          .num_local_experts = 7};
      const auto batch = random_case(config, num_tokens, 2, DataType::kFloat32, random);
      const int64_t stride = row_bytes + random.below(3);
      std::vector<std::byte> tokens(static_cast<size_t>(num_tokens * stride));
      for (std::byte& byte : tokens) byte = static_cast<std::byte>(random.bits32());
      const MatrixView<const std::byte> view(tokens.data(), num_tokens, row_bytes, stride);
      const int64_t padding = random.below(70);
      ASSERT_EQ(permute(GetParam(), batch, view, padding),
                permute(reference_variant(), batch, view, padding));
    }
  }
}

// Large enough that five threads all get a part, and that the rows no longer fit a cache.
TEST_P(PermutationRows, Contract4_PermuteOfLargeBatchesMovesTheReferencesBytes) {
  RandomStream random(3);
  const PermutationConfig config{.num_experts = 64, .top_k = 8, .block_rows = 16};
  const auto batch = random_case(config, 5000, 0, DataType::kFloat32, random);
  std::vector<std::byte> tokens(5000 * 1003);
  for (std::byte& byte : tokens) byte = static_cast<std::byte>(random.bits32());
  const MatrixView<const std::byte> view(tokens.data(), 5000, 1000, 1003);
  EXPECT_TRUE(permute(GetParam(), batch, view, 5) == permute(reference_variant(), batch, view, 5));
}

template <typename In, typename Out>
std::vector<Out> unpermute(const PermuterVariant& variant, const PermutationCase& batch,
                           const std::vector<In>& rows, int64_t hidden_size, int64_t padding,
                           bool weighted) {
  Sorted sorted(variant, batch);
  const int64_t num_rows = sorted.permuter->sizes(batch.num_tokens).num_rows;
  const MatrixView<const In> from(rows.data(), num_rows, hidden_size, hidden_size + padding);
  Guarded<Out> tokens(batch.num_tokens, hidden_size, hidden_size + 2 * padding);
  sorted.permuter->unpermute(sorted.out.view(), from,
                             weighted ? batch.gate_weights() : ConstTensorView{}, tokens.matrix());
  EXPECT_TRUE(tokens.intact()) << "written outside of the output";
  return tokens.dense();
}

TEST_P(PermutationRows, Contract9_CombineAccumulatesInSlotOrder) {
  // Expert order would be slot 2, 1, 0; only slot order leaves the last term standing.
  auto batch = make_case({.num_experts = 3, .top_k = 3}, {{2, 1, 0}});
  batch.weights = {1e8f, 1.0f, -1e8f};
  const std::vector<float> ones(3, 1.0f);
  EXPECT_EQ((unpermute<float, float>(GetParam(), batch, ones, 1, 0, true)),
            (std::vector<float>{0.0f}));
  batch.weights = {1e8f, -1e8f, 1.0f};
  EXPECT_EQ((unpermute<float, float>(GetParam(), batch, ones, 1, 0, true)),
            (std::vector<float>{1.0f}));
}

TEST_P(PermutationRows, Contract9_CombineFusesMultiplyAndAdd) {
  auto batch = make_case({.num_experts = 2, .top_k = 2}, {{0, 1}});
  const float near_one = 1.0f + 0x1p-12f;
  batch.weights = {-1.0f, near_one};
  const std::vector<float> rows{1.0f + 0x1p-11f, near_one};
  // The square is 1 + 2^-11 + 2^-24, whose last term a rounded product loses.
  EXPECT_EQ((unpermute<float, float>(GetParam(), batch, rows, 1, 0, true)),
            (std::vector<float>{0x1p-24f}));
}

TEST_P(PermutationRows, CombineWithoutWeightsAddsAndSkipsWhatHasNoRow) {
  auto batch = make_case(
      {.num_experts = 2, .top_k = 2, .capacity = {.mode = ExpertCapacity::Mode::kFixed, .rows = 1}},
      {{0, 1}, {-1, -1}, {0, -1}});
  batch.weights = {1.0f, 1.0f, NAN, NAN, NAN, NAN};
  const std::vector<float> rows{1.0f, -0.0f, 2.0f, -0.0f};
  const std::vector<float> expected{3.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  for (const bool weighted : {false, true}) {
    const auto tokens = unpermute<float, float>(GetParam(), batch, rows, 2, 0, weighted);
    EXPECT_EQ(bytes_of(tokens), bytes_of(expected));
  }
}

TEST_P(PermutationRows, CombineMakesEveryNaNTheCanonicalOne) {
  const auto batch = make_case({.num_experts = 2, .top_k = 2}, {{0, 1}});
  const auto bits = [](uint32_t word) { return std::bit_cast<float>(word); };
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> rows{bits(0xffc00123u), infinity,  bits(0x7f800001u),
                                bits(0x7fc00777u), -infinity, 1.0f};
  const auto wide = unpermute<float, float>(GetParam(), batch, rows, 3, 0, false);
  for (const float value : wide) EXPECT_EQ(std::bit_cast<uint32_t>(value), 0x7fc00000u);
  const auto half = unpermute<float, Float16>(GetParam(), batch, rows, 3, 0, false);
  for (const Float16 value : half) EXPECT_EQ(value.bits, 0x7e00u);
  const auto brain = unpermute<float, BFloat16>(GetParam(), batch, rows, 3, 0, false);
  for (const BFloat16 value : brain) EXPECT_EQ(value.bits, 0x7fc0u);
}

/// What tokens are by definition: fused multiply-adds in slot order, rounded once.
template <typename In, typename Out>
std::vector<Out> defined_combine(const PermutationCase& batch, const SortedBatch& sorted,
                                 const std::vector<In>& rows, int64_t hidden_size, int64_t padding,
                                 bool weighted) {
  std::vector<Out> tokens;
  const int64_t top_k = batch.config.top_k;
  for (int64_t token = 0; token < batch.num_tokens; ++token) {
    for (int64_t column = 0; column < hidden_size; ++column) {
      float sum = 0.0f;
      for (int64_t slot = 0; slot < top_k; ++slot) {
        const int64_t row = sorted.assignment_to_row[static_cast<size_t>(token * top_k + slot)];
        if (row < 0) continue;
        const In element = rows[static_cast<size_t>(row * (hidden_size + padding) + column)];
        sum = std::fma(weighted ? batch.weight_at(token, slot) : 1.0f, widen(element), sum);
      }
      tokens.push_back(rounded<Out>(sum));
    }
  }
  return tokens;
}

template <typename In, typename Out>
void expect_combines(const PermuterVariant& variant, uint64_t first_seed) {
  uint64_t seed = first_seed;
  for (const int64_t hidden_size : {0, 1, 2, 3, 7, 16, 17, 63, 64, 129, 1000}) {
    for (const int32_t top_k : {1, 3, 128}) {
      RandomStream random(++seed);
      SCOPED_TRACE(testing::Message()
                   << "seed " << seed << ", hidden_size " << hidden_size << ", top_k " << top_k);
      const int64_t num_tokens = one_of(random, {0, 1, 4, 20});
      const PermutationConfig config{
          .num_experts = 11,
          .top_k = top_k,
          .block_rows = one_of(random, {1, 3}),
          .capacity = {.mode = ExpertCapacity::Mode::kFactor, .factor = 1.5}};
      const auto weight_type = random.chance(50) ? DataType::kFloat32 : DataType::kBFloat16;
      const auto batch = random_case(config, num_tokens, 1, weight_type, random);
      const int64_t padding = random.below(4);
      const Permuter permuter(config, Backend::kReference);
      const int64_t num_rows = permuter.sizes(num_tokens).num_rows;
      std::vector<In> rows(static_cast<size_t>(num_rows * (hidden_size + padding)));
      for (In& element : rows) element = random_element<In>(random);
      const bool weighted = random.chance(80);
      const auto expected = defined_combine<In, Out>(
          batch, sort_guarded(reference_variant(), batch), rows, hidden_size, padding, weighted);
      const auto tokens = unpermute<In, Out>(variant, batch, rows, hidden_size, padding, weighted);
      ASSERT_EQ(bytes_of(tokens), bytes_of(expected));
    }
  }
}

TEST_P(PermutationRows, Contract9_SameBitsFromFloat32) {
  expect_combines<float, float>(GetParam(), 1000);
  expect_combines<float, Float16>(GetParam(), 2000);
  expect_combines<float, BFloat16>(GetParam(), 3000);
}

TEST_P(PermutationRows, Contract9_SameBitsFromFloat16) {
  expect_combines<Float16, float>(GetParam(), 4000);
  expect_combines<Float16, Float16>(GetParam(), 5000);
  expect_combines<Float16, BFloat16>(GetParam(), 6000);
}

TEST_P(PermutationRows, Contract9_SameBitsFromBFloat16) {
  expect_combines<BFloat16, float>(GetParam(), 7000);
  expect_combines<BFloat16, Float16>(GetParam(), 8000);
  expect_combines<BFloat16, BFloat16>(GetParam(), 9000);
}

// One row of every 16-bit pattern, and back: widening and rounding without arithmetic between.
template <typename T>
void expect_every_pattern(const PermuterVariant& variant) {
  const auto batch = make_case({.num_experts = 1, .top_k = 1}, {{0}});
  std::vector<T> rows(1 << 16);
  std::vector<T> expected;
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].bits = static_cast<uint16_t>(i);
    expected.push_back(rounded<T>(std::fma(1.0f, widen(rows[i]), 0.0f)));
  }
  const auto tokens = unpermute<T, T>(variant, batch, rows, 1 << 16, 0, false);
  EXPECT_EQ(bytes_of(tokens), bytes_of(expected));
}

TEST_P(PermutationRows, EverySixteenBitPatternSurvives) {
  expect_every_pattern<Float16>(GetParam());
  expect_every_pattern<BFloat16>(GetParam());
}

// Every float32 around the places where rounding to 16 bits changes its way.
TEST_P(PermutationRows, RoundsAsDataTypeSays) {
  std::vector<float> rows;
  for (uint32_t high = 0; high < 0x10000; high += 16) {
    for (const uint32_t low : {0x0000u, 0x0fffu, 0x1000u, 0x1001u, 0x3000u, 0x7fffu, 0x8000u,
                               0x8001u, 0xf000u, 0xffffu}) {
      rows.push_back(std::bit_cast<float>((high << 16) | low));
    }
  }
  for (const uint32_t edge : {0x33000000u, 0x33800000u, 0x387fc000u, 0x38800000u, 0x477fefffu,
                              0x477ff000u, 0x7f7fffffu, 0x7f800000u}) {
    for (uint32_t i = 0; i < 5; ++i) rows.push_back(std::bit_cast<float>(edge + i - 2));
  }
  const auto batch = make_case({.num_experts = 1, .top_k = 1}, {{0}});
  std::vector<Float16> half;
  std::vector<BFloat16> brain;
  for (const float value : rows) {
    half.push_back(rounded<Float16>(std::fma(1.0f, value, 0.0f)));
    brain.push_back(rounded<BFloat16>(std::fma(1.0f, value, 0.0f)));
  }
  const auto hidden_size = static_cast<int64_t>(rows.size());
  EXPECT_EQ(bytes_of(unpermute<float, Float16>(GetParam(), batch, rows, hidden_size, 0, false)),
            bytes_of(half));
  EXPECT_EQ(bytes_of(unpermute<float, BFloat16>(GetParam(), batch, rows, hidden_size, 0, false)),
            bytes_of(brain));
}

TEST_P(PermutationRows, Contract9_SameBitsForLargeBatches) {
  RandomStream random(17);
  const PermutationConfig config{.num_experts = 64, .top_k = 8};
  const auto batch = random_case(config, 400, 0, DataType::kFloat32, random);
  std::vector<BFloat16> rows(400 * 8 * 500);
  for (BFloat16& element : rows) element = random_element<BFloat16>(random);
  const auto expected = defined_combine<BFloat16, BFloat16>(
      batch, sort_guarded(reference_variant(), batch), rows, 500, 0, true);
  const auto tokens = unpermute<BFloat16, BFloat16>(GetParam(), batch, rows, 500, 0, true);
  EXPECT_EQ(bytes_of(tokens), bytes_of(expected));
}

INSTANTIATE_TEST_SUITE_P(Backends, PermutationRows, testing::ValuesIn(permuter_variants()),
                         [](const auto& variant) { return test_name(variant.param); });

}  // namespace
}  // namespace switchyard::test
