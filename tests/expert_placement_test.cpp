// Where experts live, and which placements are refused.
#include "switchyard/expert_placement.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "switchyard/errors.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

std::vector<int32_t> to_vector(std::span<const int32_t> values) {
  return {values.begin(), values.end()};
}

TEST(ExpertPlacement, GivesTheFirstRanksOneExpertMore) {
  const auto placement = ExpertPlacement::contiguous(5, 4);
  EXPECT_EQ(to_vector(placement.slot_offsets()), (std::vector<int32_t>{0, 2, 3, 4, 5}));
  EXPECT_EQ(to_vector(placement.slot_to_expert()), (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_TRUE(placement.slots_are_experts());
  EXPECT_EQ(placement.rank_of_slot(1), 0);
  EXPECT_EQ(placement.rank_of_slot(4), 3);
}

TEST(ExpertPlacement, LeavesRanksBeyondTheExpertsEmpty) {
  const auto placement = ExpertPlacement::contiguous(2, 4);
  EXPECT_EQ(to_vector(placement.slot_offsets()), (std::vector<int32_t>{0, 1, 2, 2, 2}));
  EXPECT_EQ(placement.num_slots_of(3), 0);
}

TEST(ExpertPlacement, ListsTheCopiesOfAnExpertInOrder) {
  const auto placement =
      ExpertPlacement::from_slots(3, 2, std::vector<int32_t>{2, 0, 1, -1, 2, 0, -1, 2});
  EXPECT_EQ(placement.num_ranks(), 2);
  EXPECT_EQ(placement.num_slots_of(0), 4);
  EXPECT_EQ(to_vector(placement.replica_offsets()), (std::vector<int32_t>{0, 2, 3, 6}));
  EXPECT_EQ(to_vector(placement.replica_slots()), (std::vector<int32_t>{1, 5, 2, 0, 4, 7}));
  EXPECT_FALSE(placement.slots_are_experts());
}

TEST(ExpertPlacement, LetsRanksHoldDifferentNumbers) {
  const auto placement = ExpertPlacement::from_replicas(
      3, 3, std::vector<ExpertReplica>{{2, 2}, {0, 0}, {1, 2}, {0, 2}});
  EXPECT_EQ(to_vector(placement.slot_offsets()), (std::vector<int32_t>{0, 1, 1, 4}));
  EXPECT_EQ(to_vector(placement.slot_to_expert()), (std::vector<int32_t>{0, 2, 1, 0}));
  EXPECT_EQ(placement.rank_of_slot(1), 2);
}

TEST(ExpertPlacement, HasAFingerprintOfAllOfIt) {
  const std::vector<int32_t> slots{0, 1, 2, 3};
  const std::vector<int32_t> others{0, 1, 3, 2};
  EXPECT_EQ(ExpertPlacement::contiguous(4, 2).fingerprint(),
            ExpertPlacement::from_slots(4, 2, slots).fingerprint());
  EXPECT_NE(ExpertPlacement::contiguous(4, 2).fingerprint(),
            ExpertPlacement::contiguous(4, 4).fingerprint());
  EXPECT_NE(ExpertPlacement::contiguous(4, 2).fingerprint(),
            ExpertPlacement::from_slots(4, 2, others).fingerprint());
}

TEST(ExpertPlacement, RefusesWhatMissesAnExpertOrNamesNone) {
  EXPECT_EQ(refusal([] {
              ExpertPlacement::from_slots(3, 2, std::vector<int32_t>{0, 1, 0, 1});
            }),
            "placement has no slot for expert 2");
  EXPECT_EQ(refusal([] {
              ExpertPlacement::from_slots(2, 2, std::vector<int32_t>{0, 2});
            }),
            "slot_to_expert[1] is 2, must be in [-1, 2)");
  EXPECT_EQ(refusal([] {
              ExpertPlacement::from_slots(2, 2, std::vector<int32_t>{0, 1, 1});
            }),
            "num_slots is 3, must be a multiple of num_ranks, 2");
  EXPECT_EQ(refusal([] {
              ExpertPlacement::from_slots(3, 1, std::vector<int32_t>{0, 1});
            }),
            "num_slots is 2, must be in [3, 1048576]");
  EXPECT_EQ(refusal([] {
              ExpertPlacement::from_replicas(1, 2, std::vector<ExpertReplica>{{0, 0}, {0, 2}});
            }),
            "replicas[1].rank is 2, must be in [0, 2)");
  EXPECT_EQ(refusal([] {
              ExpertPlacement::from_replicas(1, 2, std::vector<ExpertReplica>{{-1, 0}});
            }),
            "replicas[0].expert is -1, must be in [0, 1)");
}

TEST(ExpertPlacement, RefusesSizesOutOfRange) {
  EXPECT_EQ(refusal([] { ExpertPlacement::contiguous(0, 1); }),
            "num_experts is 0, must be in [1, 4096]");
  EXPECT_EQ(refusal([] { ExpertPlacement::contiguous(1, 0); }),
            "num_ranks is 0, must be in [1, 65536]");
}

}  // namespace
}  // namespace switchyard::test
