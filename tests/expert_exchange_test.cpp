// Dispatch and combine between threads.
#include "switchyard/expert_exchange.h"

#include <gtest/gtest.h>

#include "tests/exchange_case.h"
#include "tests/rank_threads.h"

namespace switchyard::test {
namespace {

class ExpertExchangeRanks : public testing::TestWithParam<int> {};

TEST_P(ExpertExchangeRanks, GiveTheBitsOfOneRank) {
  const int num_ranks = GetParam();
  for (const ExchangeCase& exchange_case : exchange_cases(num_ranks)) {
    const auto errors = run_in_process(num_ranks, [&](Communicator& communicator) {
      check_exchange(communicator, exchange_case);
    });
    EXPECT_EQ(errors, no_errors(num_ranks));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, ExpertExchangeRanks, testing::Values(1, 2, 3, 4, 8));

}  // namespace
}  // namespace switchyard::test
