// Nothing hangs when a rank is killed, late, elsewhere or of another mind, and every error names
// the peer and both sides of the matter.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/command_process.h"

namespace switchyard::testing {
namespace {

struct Told {
  int64_t after_ms = 0;
  std::string what;
};

/// What each rank of a mode printed; none for one that was killed.
std::map<int, Told> run_ranks(int num_ranks, const std::string& mode) {
  std::vector<std::string> words;
  std::istringstream mpirun(SWITCHYARD_MPIRUN);
  for (std::string word; mpirun >> word;) words.push_back(word);
  // mpirun would end the others when one rank fails.
  words.insert(words.end(),
               {"--enable-recovery", "-n", std::to_string(num_ranks), MPI_FAULTS, mode});
  const CommandResult result = run_program(words);
  static const std::regex kTold(R"(told (\d+) after (\d+) ms: ([^\n]*))");
  std::map<int, Told> told;
  for (std::sregex_iterator match(result.out.begin(), result.out.end(), kTold), end; match != end;
       ++match) {
    told[std::stoi((*match)[1])] = {std::stoll((*match)[2]), (*match)[3]};
  }
  EXPECT_FALSE(told.empty()) << result.out << result.err;
  return told;
}

/// All ranks' words, for what any of them may be the first to find.
std::string all_of(const std::map<int, Told>& told) {
  std::string text;
  for (const auto& [rank, what] : told) text += std::to_string(rank) + ": " + what.what + "\n";
  return text;
}

constexpr int64_t kTimeoutMs = 2000;

/// Every rank that answered was told of a failure, before `limit_ms` was over.
void expect_failures(const std::map<int, Told>& told, std::size_t count, int64_t limit_ms) {
  EXPECT_EQ(told.size(), count) << all_of(told);
  for (const auto& [rank, answer] : told) {
    EXPECT_EQ(answer.what.find("rank "), 0u) << rank << ": " << answer.what;
    EXPECT_LT(answer.after_ms, limit_ms) << rank << ": " << answer.what;
  }
}

void expect_contains(const std::map<int, Told>& told, const std::string& text) {
  EXPECT_NE(all_of(told).find(text), std::string::npos) << text << "\nis not in\n" << all_of(told);
}

/// For what either side of a disagreement may be the first to see; the other repeats its words.
void expect_either(const std::map<int, Told>& told, const std::string& one,
                   const std::string& other) {
  const std::string all = all_of(told);
  EXPECT_TRUE(all.find(one) != std::string::npos || all.find(other) != std::string::npos)
      << one << "\nand\n"
      << other << "\nare not in\n"
      << all;
}

// What the deadline, the end of the group and a machine at work on other things may take.
constexpr int64_t kLate = kTimeoutMs + 3000;
// Of what is found without waiting for the deadline.
constexpr int64_t kAtOnce = kTimeoutMs - 100;

TEST(MpiFaults, AKilledRankEndsTheOthersInTime) {
  const auto told = run_ranks(4, "killed");
  expect_failures(told, 3, kLate);
  expect_contains(told, "peer 3, dispatch: not there in time; 1000 rows expected");
}

TEST(MpiFaults, ARankKilledBeforeAGatherIsNamed) {
  const auto told = run_ranks(4, "killed_waiting");
  expect_failures(told, 3, kLate);
  expect_contains(told, "peer 3, dispatch: not there in time; 4 ranks expected, 3 came");
}

TEST(MpiFaults, ARankKilledAmidADispatchIsNamed) {
  const auto told = run_ranks(4, "killed_exchanging");
  expect_failures(told, 3, kLate);
  expect_contains(told, "peer 3, dispatch: not there in time; 4 ranks expected, 3 came");
}

TEST(MpiFaults, ALateRankIsNamed) {
  const auto told = run_ranks(3, "late");
  expect_failures(told, 3, 2 * kTimeoutMs + 3000);
  expect_contains(told, "peer 2, dispatch: not there in time; 3 ranks expected, 2 came");
  EXPECT_NE(told.at(2).what.find("not there in time"), std::string::npos) << told.at(2).what;
}

TEST(MpiFaults, LateRowsAreNamed) {
  const auto told = run_ranks(3, "late_rows");
  expect_failures(told, 3, 2 * kTimeoutMs + 3000);
  expect_contains(told, "peer 2, dispatch: not there in time; 3 rows expected");
}

TEST(MpiFaults, ARankThatTakesNothingIsNamed) {
  expect_contains(run_ranks(3, "late_taking"),
                  "peer 2, dispatch: does not take the 100 rows sent to it in time");
}

TEST(MpiFaults, ARankMayBeSlow) {
  for (const auto& [rank, answer] : run_ranks(4, "slow_but_in_time")) {
    EXPECT_EQ(answer.what, "done") << rank;
  }
}

TEST(MpiFaults, AnotherPhaseIsNamed) {
  const auto told = run_ranks(2, "other_phase");
  expect_failures(told, 2, kAtOnce);
  expect_either(told,
                "peer 1, dispatch: is at all_gather of combine, expected all_gather of dispatch",
                "peer 0, combine: is at all_gather of dispatch, expected all_gather of combine");
}

TEST(MpiFaults, AnotherExchangeIsNamed) {
  const auto told = run_ranks(2, "other_exchange");
  expect_failures(told, 2, kAtOnce);
  expect_either(told, "is at all_to_all of combine, expected all_to_all of dispatch",
                "is at all_to_all of dispatch, expected all_to_all of combine");
}

TEST(MpiFaults, AnotherCallIsNamed) {
  const auto told = run_ranks(3, "gather_amid_exchange");
  expect_failures(told, 3, kAtOnce);
  expect_either(told, "is at all_gather of plan, expected all_to_all of dispatch",
                "is at all_to_all of dispatch, expected all_gather of plan");
}

TEST(MpiFaults, ASkippedCallIsNamed) {
  const auto told = run_ranks(3, "skipped_exchange");
  expect_failures(told, 3, kAtOnce);
  expect_contains(told, "is at all_gather of plan, its call ");
}

TEST(MpiFaults, OtherBytesAreNamed) {
  expect_contains(run_ranks(2, "other_bytes"), "bytes to all_gather, expected ");
  expect_contains(run_ranks(2, "many_other_bytes"), "bytes to all_gather, expected ");
}

TEST(MpiFaults, OtherCountsAreNamed) {
  expect_contains(run_ranks(2, "fewer_rows"), "peer 1, combine: sends 1 rows, expected 2");
  for (const char* mode : {"more_rows", "many_more_rows"}) {
    expect_either(run_ranks(2, mode), "peer 1, combine: sends 3 rows, expected 2",
                  "peer 1, combine: sends more than the 2 rows");
  }
}

TEST(MpiFaults, RowsThatNobodySendsAreNamedAtOnce) {
  const auto told = run_ranks(2, "no_rows");
  expect_failures(told, 2, kAtOnce);
  expect_contains(told, "rank 0, peer 1, combine: sends 0 rows, expected 2");
}

TEST(MpiFaults, RowsThatNobodyExpectsAreNamedAtOnce) {
  for (const char* mode : {"takes_no_rows", "takes_no_large_rows"}) {
    const Told told = run_ranks(2, mode).at(1);
    EXPECT_NE(told.what.find("sends 2 rows, expected 0"), std::string::npos) << told.what;
    EXPECT_LT(told.after_ms, kAtOnce);
  }
}

TEST(MpiFaults, OwnRowsAreChecked) {
  expect_contains(run_ranks(1, "own_rows"), "peer 0, dispatch: sends 3 rows, expected 2");
}

TEST(MpiFaults, AnAbortEndsTheOthersAtOnce) {
  const auto told = run_ranks(3, "abort");
  EXPECT_EQ(told.at(2).what, "done");
  for (const int rank : {0, 1}) {
    EXPECT_NE(told.at(rank).what.find("peer 2, plan: the server stops"), std::string::npos)
        << told.at(rank).what;
    EXPECT_LT(told.at(rank).after_ms, kAtOnce);
  }
}

TEST(MpiFaults, TheFirstReasonStays) {
  expect_contains(run_ranks(1, "abort_twice"), "dispatch: the communicator is unusable since one");
}

TEST(MpiFaults, ARankThatThrowsEndsTheOthersAtOnce) {
  for (const char* mode : {"throws", "throws_amid_exchange"}) {
    const auto told = run_ranks(3, mode);
    EXPECT_EQ(told.at(2).what, "out of luck");
    for (const int rank : {0, 1}) {
      EXPECT_NE(told.at(rank).what.find("dispatch: "), std::string::npos) << told.at(rank).what;
      EXPECT_LT(told.at(rank).after_ms, kAtOnce) << mode;
    }
    expect_contains(told, "peer 2, dispatch: ");
    expect_contains(told, "left");
  }
}

TEST(MpiFaults, AGroupWithoutAllRanksIsNotMade) {
  expect_contains(run_ranks(3, "missing_at_creation"),
                  "creation of the group: not all ranks came in time");
}

}  // namespace
}  // namespace switchyard::testing
