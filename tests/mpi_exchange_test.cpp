// Dispatch and combine between processes; part of the program that mpirun starts.
#include <gtest/gtest.h>

#include <vector>

#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/mpi_communicator.h"
#include "tests/exchange_case.h"

namespace switchyard::test {
namespace {

TEST(MpiExchange, GivesTheBitsOfOneRank) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  for (const ExchangeCase& exchange_case : exchange_cases(communicator->size())) {
    check_exchange(*communicator, exchange_case);
  }
}

TEST(MpiExchange, SendsMessagesWhereNothingIsStaged) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000, .staging_bytes = 0});
  for (const ExchangeCase& exchange_case : exchange_cases(communicator->size())) {
    check_exchange(*communicator, exchange_case);
  }
}

TEST(MpiExchange, TakesAsManyTurnsAsItNeeds) {
  // The least has room for some of the cases' rows; the others are messages.
  for (const int64_t staging_bytes : {1024, 4096, 16384, 65536}) {
    const auto communicator =
        make_mpi_world_communicator({.timeout_ms = 20'000, .staging_bytes = staging_bytes});
    for (const ExchangeCase& exchange_case : exchange_cases(communicator->size())) {
      check_exchange(*communicator, exchange_case);
    }
  }
}

TEST(MpiExchange, TakesMoreTokensThanATurnHasAddressesFor) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  ExchangeCase exchange_case{
      .placement = ExpertPlacement::contiguous(4, communicator->size()),
      .num_tokens = std::vector<int64_t>(static_cast<std::size_t>(communicator->size()), 3),
      .hidden_size = 2};
  exchange_case.num_tokens.back() = 2100;
  check_exchange(*communicator, exchange_case);
}

TEST(MpiExchange, ShowsLongTurnsPastTheCaches) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  ExchangeCase exchange_case{
      .placement = ExpertPlacement::contiguous(8, communicator->size()),
      .num_tokens = std::vector<int64_t>(static_cast<std::size_t>(communicator->size()), 1),
      .hidden_size = 1001,
      .only_expert = 7};
  exchange_case.num_tokens[0] = 600;
  check_exchange(*communicator, exchange_case);
}

TEST(MpiExchange, RefusesOtherStagingOnEveryRank) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  const int last = communicator->size() - 1;
  if (last == 0) GTEST_SKIP() << "one rank has nobody to disagree with";
  const auto other = make_mpi_world_communicator(
      {.timeout_ms = 20'000, .staging_bytes = communicator->rank() == last ? 128 : 64});
  try {
    const ExpertExchange exchange(
        {.placement = ExpertPlacement::contiguous(4, other->size()), .top_k = 1, .max_tokens = 1},
        *other);
    FAIL() << "staging_bytes of 64 and 128 were taken";
  } catch (const InvalidArgument& error) {
    EXPECT_EQ(error.what(), "configure, rank " + std::to_string(last) +
                                ": the communicator's staging_bytes is 128, expected 64 as on "
                                "rank 0");
  }
}

TEST(MpiExchange, RefusesAnotherConfigurationOnEveryRank) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  if (communicator->size() == 1) GTEST_SKIP() << "one rank has nobody to disagree with";
  const int last = communicator->size() - 1;
  const ExpertExchangeConfig config{
      .placement = ExpertPlacement::contiguous(4, communicator->size()),
      .top_k = communicator->rank() == last ? 3 : 2,
      .max_tokens = 1};
  try {
    const ExpertExchange exchange(config, *communicator);
    FAIL() << "top_k of 2 and 3 were taken";
  } catch (const InvalidArgument& error) {
    EXPECT_EQ(error.what(),
              "configure, rank " + std::to_string(last) + ": top_k is 3, expected 2 as on rank 0");
  }
  communicator->barrier("test");  // still usable
}

TEST(MpiExchange, UsesRowsWhereTheyLie) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  for (ExchangeCase exchange_case : exchange_cases(communicator->size())) {
    exchange_case.shares_rows = true;
    exchange_case.scale_bytes = 0;  // which would lie elsewhere
    check_exchange(*communicator, exchange_case);
  }
}

TEST(MpiSharedMemory, IsWhatMayBeLent) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  const auto size = static_cast<std::size_t>(communicator->size());
  const std::span<std::byte> first = communicator->allocate_shared("test", 1);
  const std::span<std::byte> second =
      communicator->allocate_shared("test", 100 + communicator->rank());
  ASSERT_EQ(second.size(), static_cast<std::size_t>(100 + communicator->rank()));
  for (const std::byte value : second) ASSERT_EQ(value, std::byte{0});
  EXPECT_TRUE(communicator->can_lend(second));
  EXPECT_TRUE(communicator->can_lend(second.subspan(99)));
  EXPECT_TRUE(communicator->can_lend({}));
  EXPECT_FALSE(communicator->can_lend({second.data(), 1 << 20}));
  std::byte private_memory{};
  EXPECT_FALSE(communicator->can_lend({&private_memory, 1}));
  std::vector<std::byte*> all(size);
  EXPECT_THROW(communicator->lend("test", &private_memory, all), InvalidArgument);
  EXPECT_THROW(static_cast<void>(communicator->allocate_shared("test", 0)), InvalidArgument);
  EXPECT_THROW(make_mpi_world_communicator({.staging_bytes = -1}), InvalidArgument);

  const auto rank = static_cast<std::size_t>(communicator->rank());
  communicator->lend("test", second.data() + 1, all);
  for (std::byte* const theirs : all) theirs[rank] = static_cast<std::byte>(rank + 1);
  communicator->give_back();
  for (std::size_t peer = 0; peer < size; ++peer) {
    EXPECT_EQ(second[1 + peer], static_cast<std::byte>(peer + 1));
  }
  EXPECT_EQ(first[0], std::byte{0});
}

TEST(MpiExchange, RefusesOnEveryRankWhatOneRefuses) {
  const auto communicator = make_mpi_world_communicator({.timeout_ms = 20'000});
  const int last = communicator->size() - 1;
  ExpertExchange exchange({.placement = ExpertPlacement::contiguous(4, communicator->size()),
                           .top_k = 1,
                           .max_tokens = 1},
                          *communicator);
  AllToAllPlan plan = exchange.make_plan();
  Buffer<std::byte> workspace(exchange.plan_workspace_bytes());
  const int32_t id = communicator->rank() == last ? 9 : 0;
  try {
    exchange.plan({&id, 1, 1}, plan, workspace.bytes());
    FAIL() << "expert 9 of 4 was taken";
  } catch (const InvalidArgument& error) {
    EXPECT_EQ(error.what(), "plan, rank " + std::to_string(last) +
                                ": expert_ids of token 0, slot 0 is 9, must be in [-1, 3]");
  }
  const int32_t known = 3;
  exchange.plan({&known, 1, 1}, plan, workspace.bytes());
  EXPECT_TRUE(plan.status().is_ready);
}

}  // namespace
}  // namespace switchyard::test
