// Parts of a range: each item goes to one task, whichever tasks come, and to its owner first.
#include "cpu/task_parts.h"

#include <gtest/gtest.h>

#include <atomic>
#include <utility>
#include <vector>

#include "tests/on_threads.h"

namespace switchyard::cpu {
namespace {

using Parts = std::vector<std::pair<int64_t, int64_t>>;

Parts parts_of(TaskParts& parts, int task) {
  Parts visited;
  parts.visit(task, [&](int64_t begin, int64_t end) { visited.emplace_back(begin, end); });
  return visited;
}

TEST(TaskParts, OneTaskTakesAllInOrder) {
  for (const int64_t num_items : {1, 15, 16, 17, 1000}) {
    TaskParts parts(num_items, 1, 16, 2);
    int64_t next = 0;
    for (const auto& [begin, end] : parts_of(parts, 0)) {
      EXPECT_EQ(begin, next);
      EXPECT_LT(begin, end);
      next = end;
    }
    EXPECT_EQ(next, num_items);
  }
}

TEST(TaskParts, WhatIsLeftOfAUnitIsNoPartOfItsOwn) {
  TaskParts parts(16 * 10 + 15, 2, 16, 1);
  for (const int task : {0, 1}) {
    for (const auto& [begin, end] : parts_of(parts, task)) EXPECT_GE(end - begin, 16);
  }
}

TEST(TaskParts, NothingIsLeftWhereThereIsNothing) {
  TaskParts parts(0, 3, 16, 1);
  EXPECT_TRUE(parts_of(parts, 1).empty());
}

TEST(TaskParts, ATaskBeginsWithItsOwnShare) {
  TaskParts parts(3 * 160, 3, 16, 1);
  EXPECT_EQ(parts_of(parts, 1).front(), std::make_pair(int64_t{160}, int64_t{240}));
}

TEST(TaskParts, ATaskAloneTakesTheSharesOfThoseThatDoNotCome) {
  TaskParts parts(1000, 4, 16, 1);
  int64_t taken = 0;
  for (const auto& [begin, end] : parts_of(parts, 2)) taken += end - begin;
  EXPECT_EQ(taken, 1000);
  for (const int late : {0, 1, 3}) EXPECT_TRUE(parts_of(parts, late).empty());
}

TEST(TaskParts, PartsAreCutAtUnitsAndNoShorterThanTheLeast) {
  TaskParts parts(16 * 100 - 3, 1, 16, 5);
  const Parts visited = parts_of(parts, 0);
  int64_t before = INT64_MAX;
  for (const auto& [begin, end] : visited) {
    EXPECT_EQ(begin % 16, 0);
    EXPECT_LE(end - begin, before);
    if (end != 16 * 100 - 3) {
      EXPECT_GE(end - begin, 5 * 16);
    }
    before = end - begin;
  }
}

TEST(TaskParts, SharesMayBeEmpty) {
  TaskParts parts(20, 8, 16, 1);
  int64_t taken = 0;
  for (int task = 0; task < 8; ++task) {
    for (const auto& [begin, end] : parts_of(parts, task)) taken += end - begin;
  }
  EXPECT_EQ(taken, 20);
}

TEST(TaskParts, EveryItemIsVisitedOnceByTasksAtTheSameTime) {
  constexpr int kTasks = 4;
  constexpr int64_t kItems = 16 * 5000 + 7;
  TaskParts parts(kItems, kTasks, 16, 1);
  std::vector<std::atomic<int>> visits(kItems);
  test::on_threads(kTasks, [&](int task) {
    parts.visit(task, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
    });
  });
  for (const auto& count : visits) EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace switchyard::cpu
