// The NCCL transport with NCCL's own library on the machine's GPU: one rank, and several where NCCL
// lets ranks share a GPU (from 2.30 on, with NCCL_MULTI_RANK_GPU_ENABLE=1).
#include "switchyard/nccl_communicator.h"

#include <gtest/gtest.h>
#include <nccl.h>

#include <cstdlib>

#include "tests/captured_exchange.h"
#include "tests/communicator_case.h"
#include "tests/exchange_case.h"
#include "tests/rank_threads.h"

namespace switchyard::test {
namespace {

int64_t uneven(int source, int destination) { return (source * 5 + destination * 3 + 2) % 11; }
int64_t none(int, int) { return 0; }

/// An NCCL communicator on the thread of every rank.
std::vector<std::string> run_nccl(int size, const RankBody& body) {
  return run_in_process(size, [&](Communicator& bootstrap) {
    const auto communicator = make_nccl_communicator(bootstrap, {.timeout_ms = 60'000});
    body(*communicator);
  });
}

class NcclRanks : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (GetParam() == 1) return;
    int version = 0;
    ncclGetVersion(&version);
    if (version < NCCL_VERSION(2, 30, 0)) GTEST_SKIP() << "NCCL before 2.30: a GPU for every rank";
    const char* const enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    if (enabled == nullptr || *enabled != '1')
      GTEST_SKIP() << "NCCL_MULTI_RANK_GPU_ENABLE is not 1";
  }
};

INSTANTIATE_TEST_SUITE_P(Sizes, NcclRanks, testing::Values(1, 2, 4));

TEST_P(NcclRanks, ExchangeRows) {
  const auto errors = run_nccl(GetParam(), [](Communicator& communicator) {
    for (const RowCount count : {uneven, none}) {
      for (const int64_t row_bytes : {0, 1, 300}) {
        check_all_to_all(communicator, count, row_bytes, false);
      }
    }
    for (const int64_t rows : {0, 1, 7}) check_equal_all_to_all(communicator, rows, 12);
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

TEST_P(NcclRanks, GatherInOrder) {
  const auto errors = run_nccl(GetParam(), [](Communicator& communicator) {
    for (const int64_t bytes : {0, 1, 960, 961, 100'000}) check_all_gather(communicator, bytes);
    communicator.barrier("test");
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

TEST_P(NcclRanks, GiveTheBitsOfOneRank) {
  const auto errors = run_nccl(GetParam(), [](Communicator& communicator) {
    for (const ExchangeCase& exchange_case : exchange_cases(communicator.size())) {
      check_exchange(communicator, exchange_case);
    }
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

TEST_P(NcclRanks, RepeatWhatIsCaptured) {
  if (GetParam() > 1) GTEST_SKIP() << "launches of threads of one process may wait for each other";
  const auto errors = run_nccl(GetParam(), [](Communicator& communicator) {
    for (const bool deduplicates : {false, true}) {
      check_captured_exchange(communicator, deduplicates, true);
    }
    check_captured_all_to_all(communicator);
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

}  // namespace
}  // namespace switchyard::test
