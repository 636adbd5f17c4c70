// What affinity refuses on the host: the message names argument, value and limit; nothing changes.
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "switchyard/errors.h"
#include "tests/expert_affinity_case.h"

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

TEST(AffinityConfig, Contract10_RefusalNamesFieldValueAndLimit) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto refusal = [](const ExpertAffinityConfig& config) {
    std::string text = refusal_of([&] { validate(config); });
    EXPECT_EQ(refusal_of([&] { const ExpertAffinity built(config, Backend::kCpu); }), text);
    return text;
  };
  EXPECT_EQ(refusal({-1}), "num_experts is -1, must be in [0, 4096]");
  EXPECT_EQ(refusal({4097}), "num_experts is 4097, must be in [0, 4096]");
  EXPECT_EQ(refusal({8, 1.5f}), "decay is 1.5, must be in [0, 1]");
  EXPECT_EQ(refusal({8, -0.5f}), "decay is -0.5, must be in [0, 1]");
  EXPECT_EQ(refusal({8, kNan}), "decay is nan, must be in [0, 1]");
  EXPECT_EQ(refusal({8, 0.5f, -3.0f}), "activation_boost is -3, must be finite and 0 or more");
  EXPECT_EQ(refusal({8, 0.5f, kNan}), "activation_boost is nan, must be finite and 0 or more");
  EXPECT_EQ(refusal({8, 0.5f, kInfinity}), "activation_boost is inf, must be finite and 0 or more");
  EXPECT_EQ(refusal({8, 0.5f, 1.0f, -3.0f}), "max_score is -3, must be finite and 0 or more");
  EXPECT_EQ(refusal({8, 0.5f, 1.0f, kNan}), "max_score is nan, must be finite and 0 or more");
  EXPECT_EQ(refusal({8, 0.0f, 0.0f, 0.0f}), "accepted");
  EXPECT_EQ(refusal({4096, 1.0f, -0.0f, -0.0f}), "accepted");
}

class AffinityRefusal : public ::testing::TestWithParam<Backend> {
 protected:
  AffinityRefusal() : affinity_({.num_experts = 5}, GetParam()) {
    affinity_.record(AffinityBatch({0, 4}, 1).view());
  }

  /// Expects what was recorded before and nothing else.
  void expect_unchanged() {
    affinity_.update();
    EXPECT_EQ(activations_of(affinity_), (std::vector<int64_t>{1, 0, 0, 0, 1}));
    EXPECT_EQ(scores_of(affinity_), (std::vector<float>{1, 0, 0, 0, 1}));
  }

  ExpertAffinity affinity_;
};

TEST_P(AffinityRefusal, Contract10_UnknownIdNamesTokenSlotAndId) {
  const auto refusal = [&](const std::vector<int32_t>& ids) {
    return refusal_of([&] { affinity_.record(AffinityBatch(ids, 2).view()); });
  };
  EXPECT_EQ(refusal({1, 5}), "expert_ids of token 0, slot 1 is 5, must be in [-1, 4]");
  EXPECT_EQ(refusal({1, 2, 3, -2}), "expert_ids of token 1, slot 1 is -2, must be in [-1, 4]");
  constexpr int32_t kLowest = std::numeric_limits<int32_t>::min();
  constexpr int32_t kHighest = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(refusal({kLowest, 1}),
            "expert_ids of token 0, slot 0 is -2147483648, must be in [-1, 4]");
  EXPECT_EQ(refusal({kHighest, 1}),
            "expert_ids of token 0, slot 0 is 2147483647, must be in [-1, 4]");
  expect_unchanged();
}

/// With this many experts a few ids are recorded another way than many.
TEST_P(AffinityRefusal, Contract10_NothingIsRecordedOfARefusedBatch) {
  ExpertAffinity affinity({.num_experts = 1000}, GetParam());
  EXPECT_EQ(refusal_of([&] {
              affinity.record(AffinityBatch({1, 2, 1000}, 1).view());
            }),
            "expert_ids of token 2, slot 0 is 1000, must be in [-1, 999]");
  std::vector<int32_t> many(5000, 3);
  many.back() = 1000;
  EXPECT_EQ(refusal_of([&] { affinity.record(AffinityBatch(many, 1).view()); }),
            "expert_ids of token 4999, slot 0 is 1000, must be in [-1, 999]");
  affinity.update();
  EXPECT_EQ(activations_of(affinity), std::vector<int64_t>(1000));
}

TEST_P(AffinityRefusal, Contract10_ShapesAreNamed) {
  const AffinityBatch batch({0, 1, 2, 3}, 2);
  const auto refusal = [&](MatrixView<const int32_t> ids) {
    return refusal_of([&] { affinity_.record(ids); });
  };
  EXPECT_EQ(refusal({batch.ids.data(), -1, 2}),
            "expert_ids rows is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal({batch.ids.data(), 2, 4097}),
            "expert_ids columns is 4097, must be in [0, 4096]");
  EXPECT_EQ(refusal({batch.ids.data(), 2, 2, 1}),
            "expert_ids has row_stride 1, must be at least its 2 columns");
  EXPECT_EQ(refusal({nullptr, 2, 2}), "expert_ids is a null pointer");
  const BackendVector<int64_t> counts(5, 1);
  EXPECT_EQ(refusal_of([&] {
              affinity_.update({counts.data(), 4});
            }),
            "tokens_per_expert has 4 elements, must have at least 5");
  EXPECT_EQ(refusal_of([&] {
              affinity_.update({nullptr, 5});
            }),
            "tokens_per_expert is a null pointer");
  expect_unchanged();
}

TEST_P(AffinityRefusal, Contract10_CountsBelowZeroNameTheExpert) {
  const BackendVector<int64_t> counts{1, 2, 3, -4, 5};
  EXPECT_EQ(refusal_of([&] { affinity_.update(view_of(counts)); }),
            "tokens_per_expert of expert 3 is -4, must be 0 or more");
  expect_unchanged();
}

TEST_P(AffinityRefusal, Contract10_ReadersNameTheirArguments) {
  std::vector<float> scores(5, -1.0f);
  std::vector<int64_t> sums(5, -1);
  EXPECT_EQ(refusal_of([&] {
              affinity_.scores({scores.data(), 4});
            }),
            "out has 4 elements, must have 5");
  EXPECT_EQ(refusal_of([&] { affinity_.scores({nullptr, 5}); }), "out is a null pointer");
  EXPECT_EQ(refusal_of([&] {
              affinity_.activations({sums.data(), 6});
            }),
            "out has 6 elements, must have 5");
  EXPECT_EQ(scores, std::vector<float>(5, -1.0f));
  EXPECT_EQ(sums, std::vector<int64_t>(5, -1));
  EXPECT_EQ(refusal_of([&] { affinity_.top_k({nullptr, 2}); }), "experts is a null pointer");
  EXPECT_EQ(refusal_of([&] {
              affinity_.top_k({nullptr, -2});
            }),
            "experts has -2 elements, must have 0 or more");
  EXPECT_EQ(refusal_of([&] {
              (void)affinity_.least({nullptr, -2});
            }),
            "candidates has -2 elements, must have 0 or more");
  EXPECT_EQ(refusal_of([&] {
              (void)least_of(affinity_, {3, -1});
            }),
            "candidate 1 is -1, must be 0 or more");
  EXPECT_EQ(refusal_of([&] { (void)affinity_.percentile(-1); }), "expert is -1, must be 0 or more");
}

INSTANTIATE_TEST_SUITE_P(Backends, AffinityRefusal,
                         ::testing::Values(Backend::kReference, Backend::kCpu),
                         [](const auto& backend) { return std::string(name_of(backend.param)); });

}  // namespace
}  // namespace switchyard::test
