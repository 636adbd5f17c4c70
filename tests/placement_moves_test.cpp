// Schedules of moves, carried out step by step.
#include "switchyard/placement_moves.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

ExpertPlacement placed(int32_t num_experts, int32_t num_ranks, std::vector<int32_t> slots) {
  return ExpertPlacement::from_slots(num_experts, num_ranks, slots);
}

/// Does what the steps say and checks that each reads what it sends. Returns the bytes sent.
int64_t carry_out(const ExpertPlacement& before, const ExpertPlacement& after,
                  const std::vector<PlacementMove>& moves) {
  std::vector<int32_t> slots(before.slot_to_expert().begin(), before.slot_to_expert().end());
  std::map<int32_t, int32_t> aside;  // by rank
  int64_t bytes = 0;
  for (const PlacementMove& move : moves) {
    EXPECT_EQ(move.to_rank, after.rank_of_slot(move.to_slot));
    bytes += move.bytes;
    if (move.kind == MoveKind::kPutBack) {
      EXPECT_EQ(aside.at(move.to_rank), move.expert);
      slots[static_cast<size_t>(move.to_slot)] = move.expert;
      aside.erase(move.to_rank);
      continue;
    }
    EXPECT_EQ(slots[static_cast<size_t>(move.from_slot)], move.expert);
    EXPECT_EQ(before.slot_to_expert()[static_cast<size_t>(move.from_slot)], move.expert);
    EXPECT_EQ(move.from_rank, before.rank_of_slot(move.from_slot));
    if (move.kind == MoveKind::kSetAside) {
      EXPECT_TRUE(aside.empty());
      aside[move.to_rank] = move.expert;
    } else {
      slots[static_cast<size_t>(move.to_slot)] = move.expert;
    }
  }
  EXPECT_TRUE(aside.empty());
  for (size_t slot = 0; slot < slots.size(); ++slot) {
    if (after.slot_to_expert()[slot] < 0) continue;
    EXPECT_EQ(slots[slot], after.slot_to_expert()[slot]);
  }
  return bytes;
}

TEST(PlacementMoves, SetOneExpertAsideWhereTwoSwap) {
  const auto before = placed(2, 2, {0, 1});
  const auto after = placed(2, 2, {1, 0});
  const auto moves = schedule_moves(before, after, 3, 10);
  ASSERT_EQ(moves.size(), 3u);
  EXPECT_EQ(moves[0].kind, MoveKind::kSetAside);
  EXPECT_EQ(moves[1].kind, MoveKind::kCopy);
  EXPECT_EQ(moves[2].kind, MoveKind::kPutBack);
  EXPECT_EQ(moves[0].layer, 3);
  EXPECT_EQ(carry_out(before, after, moves), 20);
  EXPECT_EQ(moved_slots(before, after), 2);
  EXPECT_EQ(busiest_rank_bytes(moves, 2), 10);
}

TEST(PlacementMoves, TakeFromSlotsThatStay) {
  const auto before = placed(3, 3, {0, 1, 0, 2, 0, 1});
  const auto after = placed(3, 3, {2, 1, 0, 2, 0, 2});
  const auto moves = schedule_moves(before, after, 0, 1);
  for (const PlacementMove& move : moves) EXPECT_EQ(move.from_slot, 3);
  EXPECT_EQ(carry_out(before, after, moves), 2);
}

TEST(PlacementMoves, PreferTheOwnNode) {
  const auto wide = placed(2, 4, {0, 1, 1, 0});
  const auto spread = placed(2, 4, {0, 1, 0, 0});
  const auto moves = schedule_moves(wide, spread, 0, 1, 2);
  ASSERT_EQ(moves.size(), 1u);
  EXPECT_EQ(moves[0].from_rank, 3);
}

TEST(PlacementMoves, NeedNothingForSlotsThatBecomeEmpty) {
  const auto before = placed(2, 2, {0, 1, 0, 1});
  const auto after = placed(2, 2, {0, -1, -1, 1});
  EXPECT_TRUE(schedule_moves(before, after, 0, 1).empty());
  EXPECT_EQ(moved_slots(before, after), 2);
}

TEST(PlacementMoves, LeadFromAnyPlacementToAnyOther) {
  RandomStream random(5);
  for (int trial = 0; trial < 2000; ++trial) {
    const auto num_ranks = static_cast<int32_t>(1 + random.below(5));
    const auto per_rank = static_cast<int32_t>(1 + random.below(4));
    const int32_t num_slots = num_ranks * per_rank;
    const auto num_experts = static_cast<int32_t>(1 + random.below(num_slots));
    const auto any = [&] {
      std::vector<int32_t> slots(static_cast<size_t>(num_slots));
      for (int32_t& expert : slots)
        expert = static_cast<int32_t>(random.below(num_experts + 1)) - 1;
      std::vector<size_t> order(slots.size());
      for (size_t i = 0; i < order.size(); ++i) order[i] = i;
      for (size_t i = 0; i + 1 < order.size(); ++i) {
        std::swap(
            order[i],
            order[i + static_cast<size_t>(random.below(static_cast<int64_t>(order.size() - i)))]);
      }
      for (int32_t e = 0; e < num_experts; ++e) slots[order[static_cast<size_t>(e)]] = e;
      return placed(num_experts, num_ranks, slots);
    };
    const ExpertPlacement before = any();
    const ExpertPlacement after = any();
    const auto moves = schedule_moves(before, after, 0, 100);
    EXPECT_LE(carry_out(before, after, moves), 100 * moved_slots(before, after));
    int64_t copies = 0;
    for (const PlacementMove& move : moves) copies += move.kind != MoveKind::kPutBack ? 1 : 0;
    int64_t emptied = 0;
    for (size_t slot = 0; slot < before.slot_to_expert().size(); ++slot) {
      emptied += before.slot_to_expert()[slot] >= 0 && after.slot_to_expert()[slot] < 0 ? 1 : 0;
    }
    EXPECT_EQ(copies + emptied, moved_slots(before, after));
  }
}

TEST(PlacementMoves, RefusePlacementsOfAnotherShape) {
  const auto one = placed(2, 2, {0, 1});
  const auto two = placed(2, 1, {0, 1});
  EXPECT_EQ(refusal([&] { schedule_moves(one, two, 0, 1); }), "ranks are 2 before and 1 after");
  EXPECT_EQ(refusal([&] {
              moved_slots(one, placed(1, 2, {0, 0}));
            }),
            "experts are 2 before and 1 after");
  EXPECT_EQ(refusal([&] {
              moved_slots(one, placed(2, 2, {0, 1, 0, 1}));
            }),
            "slots of rank 0 are 1 before and 2 after");
  EXPECT_NE(refusal([&] { schedule_moves(one, one, 0, -1); }).find("bytes_per_slot is -1"),
            std::string::npos);
  EXPECT_NE(refusal([&] { schedule_moves(one, one, 0, 1, 0); }).find("ranks_per_node is 0"),
            std::string::npos);
}

}  // namespace
}  // namespace switchyard::test
