// Dispatch and combine between processes; part of the program that mpirun starts.
#include <gtest/gtest.h>

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
