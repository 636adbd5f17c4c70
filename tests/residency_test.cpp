// Which experts are in which memory: queries, budgets, pins, and what is refused.
#include "switchyard/residency.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/paging_case.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

TEST(Residency, BeginsWithNothingInFastMemory) {
  const Residency residency({.num_layers = 2, .num_experts = 5, .fast_slots = 3});
  EXPECT_EQ(residency.num_resident(0), 0);
  EXPECT_EQ(residency.fast_slots(1), 3);
  EXPECT_EQ(residency.tier(1, 4), MemoryTier::kHost);
  EXPECT_EQ(residency.fast_bytes_used(), 0);
  EXPECT_EQ(residency.host_bytes_used(), 10);
  EXPECT_EQ(residents_of(residency), std::vector<int32_t>{});
}

TEST(Residency, ListsAscendingForAnyNumberOfExperts) {
  for (const int32_t num_experts : {1, 2, 63, 64, 65, 128, 1000, 4096}) {
    Residency residency({.num_layers = 3, .num_experts = num_experts, .fast_slots = num_experts});
    RandomStream random(7);
    std::vector<int32_t> expected;
    std::vector<int32_t> order(static_cast<size_t>(num_experts));
    std::iota(order.rbegin(), order.rend(), 0);
    for (const int32_t expert : order) {
      if (random.chance(50)) residency.set_resident(1, expert);
    }
    const VectorView<const uint8_t> mask = residency.resident_experts(1);
    ASSERT_EQ(mask.size, num_experts);
    for (int32_t expert = 0; expert < num_experts; ++expert) {
      EXPECT_EQ(mask[expert], residency.is_resident(1, expert) ? 1 : 0);
      if (mask[expert] != 0) expected.push_back(expert);
    }
    EXPECT_EQ(residents_of(residency, 1), expected);
    EXPECT_EQ(residency.num_resident(0) + residency.num_resident(2), 0);
  }
}

TEST(Residency, MasksStayInPlace) {
  Residency residency({.num_layers = 2, .num_experts = 70, .fast_slots = 70});
  const VectorView<const uint8_t> mask = residency.resident_experts(1);
  Residency moved(std::move(residency));
  moved.set_resident(1, 69);
  EXPECT_EQ(moved.resident_experts(1).data, mask.data);
  EXPECT_EQ(mask[69], 1);
}

TEST(Residency, BudgetsHold) {
  Residency residency({.num_layers = 2,
                       .num_experts = 8,
                       .fast_slots = 2,
                       .expert_bytes = 100,
                       .fast_bytes = 399,
                       .host_bytes = 1250});
  EXPECT_EQ(residency.host_bytes_used(), 1200);
  EXPECT_EQ(residency.tier(1, 3), MemoryTier::kHost);
  EXPECT_EQ(residency.tier(1, 4), MemoryTier::kStorage);
  residency.set_resident(0, 7);
  residency.set_resident(0, 6);
  EXPECT_EQ(refusal([&] { residency.set_resident(0, 5); }),
            "layer 0 would have 3 experts in fast memory, must have at most 2");
  residency.set_resident(1, 7);
  EXPECT_EQ(refusal([&] { residency.set_resident(1, 6); }),
            "fast memory would hold 4 experts, must hold at most 3: fast_bytes is 399");
  EXPECT_EQ(residency.fast_bytes_used(), 300);
  EXPECT_EQ(residency.host_bytes_used(), 1000);  // two of them were there before
  residency.move(1, 4, MemoryTier::kHost);
  residency.move(1, 5, MemoryTier::kHost);
  EXPECT_EQ(refusal([&] { residency.move(1, 6, MemoryTier::kHost); }),
            "host memory would hold 13 experts, must hold at most 12: host_bytes is 1250");
  residency.clear_resident(0, 7);  // nowhere else to go
  EXPECT_EQ(residency.tier(0, 7), MemoryTier::kStorage);
  residency.move(1, 4, MemoryTier::kStorage);
  residency.clear_resident(0, 6);
  EXPECT_EQ(residency.tier(0, 6), MemoryTier::kHost);
}

TEST(Residency, AssignsAWholeLayer) {
  Residency residency({.num_experts = 8, .fast_slots = 3});
  residency.pin(0, 2);
  const std::vector<int32_t> wanted{5, 2, 5, 0};
  residency.assign_resident(0, view_of(wanted));
  EXPECT_EQ(residents_of(residency), (std::vector<int32_t>{0, 2, 5}));
  const std::vector<int32_t> without{5, 0};
  EXPECT_EQ(refusal([&] { residency.assign_resident(0, view_of(without)); }),
            "experts of layer 0 hold 0 pinned ones, must hold all 1");
  const std::vector<int32_t> many{0, 1, 2, 3};
  EXPECT_EQ(refusal([&] { residency.assign_resident(0, view_of(many)); }),
            "layer 0 would have 4 experts in fast memory, must have at most 3");
  const std::vector<int32_t> unknown{2, 8};
  EXPECT_EQ(refusal([&] { residency.assign_resident(0, view_of(unknown)); }),
            "expert is 8, must be in [0, 7]");
  EXPECT_EQ(residents_of(residency), (std::vector<int32_t>{0, 2, 5}));
}

TEST(Residency, PinnedExpertsStay) {
  Residency residency({.num_experts = 8, .fast_slots = 2});
  residency.pin(0, 3);
  EXPECT_TRUE(residency.is_pinned(0, 3));
  EXPECT_EQ(residency.num_pinned(0), 1);
  EXPECT_EQ(refusal([&] { residency.clear_resident(0, 3); }),
            "expert 3 of layer 0 is pinned, must not leave fast memory");
  EXPECT_EQ(refusal([&] { residency.move(0, 3, MemoryTier::kStorage); }),
            "expert 3 of layer 0 is pinned, must not leave fast memory");
  residency.pin(0, 3);
  residency.unpin(0, 3);
  EXPECT_EQ(residency.num_pinned(0), 0);
  residency.clear_resident(0, 3);
  EXPECT_FALSE(residency.is_resident(0, 3));
}

TEST(Residency, NoBudgetBelowWhatIsInUse) {
  Residency residency({.num_experts = 8, .fast_slots = 3});
  residency.pin(0, 1);
  residency.pin(0, 2);
  residency.set_resident(0, 3);
  EXPECT_EQ(refusal([&] { residency.set_fast_slots(0, 1); }),
            "fast_slots of layer 0 is 1, must be at least the 2 that are pinned");
  EXPECT_EQ(refusal([&] { residency.set_fast_slots(0, 2); }),
            "fast_slots of layer 0 is 2, must be at least the 3 in use");
  EXPECT_EQ(refusal([&] { residency.set_fast_slots(0, 9); }), "fast_slots is 9, must be in [0, 8]");
  EXPECT_EQ(residency.fast_slots(0), 3);
  residency.set_fast_slots(0, 8);
  EXPECT_EQ(residency.fast_slots(0), 8);
}

TEST(Residency, RefusesConfigs) {
  const auto says = [](const ResidencyConfig& config) {
    return refusal([&] { const Residency residency(config); });
  };
  EXPECT_EQ(says({.num_layers = 0, .num_experts = 8}), "num_layers is 0, must be in [1, 4096]");
  EXPECT_EQ(says({.num_experts = 0}), "num_experts is 0, must be in [1, 4096]");
  EXPECT_EQ(says({.num_experts = 4097}), "num_experts is 4097, must be in [1, 4096]");
  EXPECT_EQ(says({.num_experts = 8, .fast_slots = -1}), "fast_slots is -1, must be in [0, 8]");
  EXPECT_EQ(says({.num_experts = 8, .fast_slots = 9}), "fast_slots is 9, must be in [0, 8]");
  EXPECT_EQ(says({.num_experts = 8, .expert_bytes = 0}), "expert_bytes is 0, must be 1 or more");
  EXPECT_EQ(says({.num_experts = 8, .fast_bytes = -1}), "fast_bytes is -1, must be 0 or more");
  EXPECT_EQ(says({.num_experts = 8, .host_bytes = -5}), "host_bytes is -5, must be 0 or more");
}

TEST(Residency, RefusesLayersExpertsAndListsOutOfRange) {
  Residency residency({.num_layers = 2, .num_experts = 8, .fast_slots = 8});
  residency.set_resident(1, 4);
  residency.set_resident(1, 5);
  EXPECT_EQ(refusal([&] { residency.set_resident(2, 0); }), "layer is 2, must be in [0, 1]");
  EXPECT_EQ(refusal([&] { residency.set_resident(0, -1); }), "expert is -1, must be in [0, 7]");
  EXPECT_EQ(refusal([&] { residency.pin(-1, 0); }), "layer is -1, must be in [0, 1]");
  EXPECT_EQ(refusal([&] { (void)residency.tier(0, 8); }), "expert is 8, must be in [0, 7]");
  EXPECT_EQ(refusal([&] { (void)residency.resident_experts(2); }), "layer is 2, must be in [0, 1]");
  std::vector<int32_t> one(1, -7);
  EXPECT_EQ(refusal([&] {
              residency.list_resident(1, {one.data(), 1});
            }),
            "experts has 1 elements, must have at least 2");
  EXPECT_EQ(one[0], -7);
}

}  // namespace
}  // namespace switchyard::test
