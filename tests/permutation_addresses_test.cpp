// Rows by address: every backend, instruction set and thread count against the definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "switchyard/permutation.h"
#include "tests/backend_variants.h"
#include "tests/permutation_case.h"
#include "tests/row_elements.h"

namespace switchyard::test {
namespace {

constexpr std::byte kGap{0xa5};

/// Rows strewn over memory in any order, with gaps between them.
struct Strewn {
  Strewn(const PermutationCase& batch, int64_t row_bytes, RandomStream& random)
      : num_tokens(batch.num_tokens), top_k(batch.config.top_k), stride(top_k + batch.padding) {
    offsets.assign(static_cast<size_t>(num_tokens * stride), -1);
    std::vector<size_t> places;
    for (int64_t token = 0; token < num_tokens; ++token) {
      for (int64_t slot = 0; slot < top_k; ++slot) {
        if (batch.id_at(token, slot) < 0) continue;
        places.push_back(static_cast<size_t>(token * stride + slot));
        const auto other = static_cast<size_t>(random.below(static_cast<int64_t>(places.size())));
        std::swap(places[other], places.back());
      }
    }
    // Aligned as a device asks for, and no more.
    const int64_t unit = std::max<int64_t>(1, std::min<int64_t>(16, row_bytes & -row_bytes));
    int64_t end = 0;
    for (const size_t place : places) {
      end += unit * random.below(3);
      offsets[place] = end;
      end += row_bytes;
    }
    memory.assign(static_cast<size_t>(end), kGap);
  }

  [[nodiscard]] MatrixView<const int64_t> offsets_view() const {
    return {offsets.data(), num_tokens, top_k, stride};
  }
  /// Of a row, its first byte; null where there is none.
  [[nodiscard]] std::byte* row(int64_t token, int64_t slot) {
    const int64_t offset = offsets[static_cast<size_t>(token * stride + slot)];
    return offset < 0 ? nullptr : memory.data() + offset;
  }

  int64_t num_tokens;
  int64_t top_k;
  int64_t stride;
  std::vector<int64_t> offsets;
  std::vector<std::byte> memory;
};

class PermutationAddresses : public testing::TestWithParam<PermuterVariant> {
 protected:
  void SetUp() override {
    const int64_t target = GetParam().target;
    if (target != 0) target_ = std::make_unique<ScopedCpuTarget>(target);
  }

 private:
  std::unique_ptr<ScopedCpuTarget> target_;
};

void expect_copies(const PermuterVariant& variant, const PermutationCase& batch, int64_t row_bytes,
                   RandomStream& random) {
  Strewn rows(batch, row_bytes, random);
  const int64_t offset = random.below(3);
  const int64_t stride = row_bytes + (random.chance(50) ? 0 : random.below(20));
  std::vector<std::byte> tokens(static_cast<size_t>(offset + batch.num_tokens * stride));
  for (std::byte& byte : tokens) byte = static_cast<std::byte>(random.bits32());
  const MatrixView<const std::byte> view(tokens.data() + offset, batch.num_tokens, row_bytes,
                                         stride);
  Strewn expected = rows;
  for (int64_t token = 0; token < batch.num_tokens; ++token) {
    for (int64_t slot = 0; slot < rows.top_k; ++slot) {
      std::byte* row = expected.row(token, slot);
      if (row != nullptr) std::copy_n(view.row(token), row_bytes, row);
    }
  }
  make_route(variant, batch.config)->permute_to(view, rows.offsets_view(), rows.memory);
  ASSERT_TRUE(rows.memory == expected.memory);
}

TEST_P(PermutationAddresses, RowsArriveAndNothingElseIsWritten) {
  uint64_t seed = 0;
  for (const int64_t row_bytes : {0, 1, 2, 3, 4, 8, 16, 24, 63, 64, 65, 1000, 2064, 4098}) {
    for (const int64_t num_tokens : {0, 1, 7, 40}) {
      for (const int32_t top_k : {5, 33}) {
        RandomStream random(++seed);
        SCOPED_TRACE(testing::Message() << "seed " << seed << ", row_bytes " << row_bytes);
        const auto batch = random_case({.num_experts = 9, .top_k = top_k}, num_tokens,
                                       random.below(3), DataType::kFloat32, random);
        expect_copies(GetParam(), batch, row_bytes, random);
      }
    }
  }
}

// Large enough that five threads all get a part, and that the rows no longer fit a cache.
TEST_P(PermutationAddresses, RowsOfLargeBatchesArriveAndNothingElseIsWritten) {
  RandomStream random(3);
  const auto batch =
      random_case({.num_experts = 64, .top_k = 8}, 2500, 0, DataType::kFloat32, random);
  expect_copies(GetParam(), batch, 2000, random);
}

TEST_P(PermutationAddresses, TokensWithoutRowsMayBeAll) {
  const std::vector<std::byte> tokens(3 * 16);
  const std::vector<int64_t> offsets(6, -1);
  std::vector<std::byte> memory(16, kGap);
  const auto route = make_route(GetParam(), {.num_experts = 4, .top_k = 2});
  route->permute_to({tokens.data(), 3, 16}, {offsets.data(), 3, 2}, memory);
  EXPECT_EQ(memory, std::vector<std::byte>(16, kGap));
  Guarded<float> combined(3, 4, 5);
  route->unpermute_from({offsets.data(), 3, 2}, memory, DataType::kFloat32, {}, combined.matrix());
  EXPECT_EQ(bytes_of(combined.dense()), bytes_of(std::vector<float>(12, 0.0f)));
  EXPECT_TRUE(combined.intact());
}

template <typename In, typename Out>
void expect_combines(const PermuterVariant& variant, const PermutationCase& batch,
                     int64_t hidden_size, RandomStream& random) {
  Strewn rows(batch, hidden_size * static_cast<int64_t>(sizeof(In)), random);
  const bool weighted = random.chance(80);
  std::vector<float> sums(static_cast<size_t>(batch.num_tokens * hidden_size), 0.0f);
  for (int64_t token = 0; token < batch.num_tokens; ++token) {
    for (int64_t slot = 0; slot < rows.top_k; ++slot) {
      std::byte* row = rows.row(token, slot);
      if (row == nullptr) continue;
      for (int64_t column = 0; column < hidden_size; ++column) {
        const auto element = random_element<In>(random);
        std::memcpy(row + column * static_cast<int64_t>(sizeof(In)), &element, sizeof(In));
        float& sum = sums[static_cast<size_t>(token * hidden_size + column)];
        sum = std::fma(weighted ? batch.weight_at(token, slot) : 1.0f, widen(element), sum);
      }
    }
  }
  std::vector<Out> expected;
  expected.reserve(sums.size());
  for (const float sum : sums) expected.push_back(rounded<Out>(sum));
  Guarded<Out> tokens(batch.num_tokens, hidden_size, hidden_size + random.below(4));
  make_route(variant, batch.config)
      ->unpermute_from(rows.offsets_view(), rows.memory, DataTypeOf<In>::value,
                       weighted ? batch.gate_weights() : ConstTensorView{}, tokens.matrix());
  ASSERT_TRUE(tokens.intact()) << "written outside of the output";
  ASSERT_EQ(bytes_of(tokens.dense()), bytes_of(expected));
}

template <typename In, typename Out>
void expect_combines(const PermuterVariant& variant, uint64_t seed) {
  for (const int64_t hidden_size : {0, 1, 3, 8, 16, 17, 64, 129, 1000}) {
    for (const int32_t top_k : {1, 3, 40}) {
      RandomStream random(++seed);
      SCOPED_TRACE(testing::Message()
                   << "seed " << seed << ", hidden_size " << hidden_size << ", top_k " << top_k);
      const auto weight_type = random.chance(50) ? DataType::kFloat32 : DataType::kBFloat16;
      const auto batch = random_case({.num_experts = 11, .top_k = top_k},
                                     one_of(random, {0, 1, 4, 20}), 1, weight_type, random);
      expect_combines<In, Out>(variant, batch, hidden_size, random);
    }
  }
}

TEST_P(PermutationAddresses, Contract9_SameBitsFromFloat32) {
  expect_combines<float, float>(GetParam(), 1000);
  expect_combines<float, BFloat16>(GetParam(), 2000);
}

TEST_P(PermutationAddresses, Contract9_SameBitsFromFloat16) {
  expect_combines<Float16, float>(GetParam(), 3000);
  expect_combines<Float16, Float16>(GetParam(), 4000);
}

TEST_P(PermutationAddresses, Contract9_SameBitsFromBFloat16) {
  expect_combines<BFloat16, Float16>(GetParam(), 5000);
  expect_combines<BFloat16, BFloat16>(GetParam(), 6000);
}

TEST_P(PermutationAddresses, Contract9_SameBitsForLargeBatches) {
  RandomStream random(17);
  const auto batch =
      random_case({.num_experts = 64, .top_k = 8}, 400, 0, DataType::kFloat32, random);
  expect_combines<BFloat16, BFloat16>(GetParam(), batch, 500, random);
}

INSTANTIATE_TEST_SUITE_P(Backends, PermutationAddresses, testing::ValuesIn(permuter_variants()),
                         [](const auto& variant) { return test_name(variant.param); });

}  // namespace
}  // namespace switchyard::test
