// Ranks that are threads: rows arrive, and nothing hangs when a rank is late, gone or elsewhere.
#include "switchyard/in_process_communicator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>

#include "switchyard/errors.h"
#include "tests/communicator_case.h"
#include "tests/rank_threads.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

int64_t uneven(int source, int destination) { return (source * 5 + destination * 3) % 11; }
int64_t none(int, int) { return 0; }
int64_t all_to_last(int source, int destination) { return destination == 3 ? source + 2 : 0; }
int64_t last_sends_nothing(int source, int destination) { return source == 3 ? 0 : destination; }

// Long enough for ranks that do come on a machine that is busy elsewhere.
constexpr CommunicatorOptions kShort{.timeout_ms = 2000};

class InProcessRanks : public testing::TestWithParam<int> {};

TEST_P(InProcessRanks, ExchangeRows) {
  const auto errors = run_in_process(GetParam(), [](Communicator& communicator) {
    for (const RowCount count : {uneven, none, all_to_last, last_sends_nothing}) {
      for (const int64_t row_bytes : {0, 1, 16, 300}) {
        check_all_to_all(communicator, count, row_bytes, false);
        check_all_to_all(communicator, count, row_bytes, true);
      }
    }
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

TEST_P(InProcessRanks, ExchangeEqualNumbersOfRows) {
  const auto errors = run_in_process(GetParam(), [](Communicator& communicator) {
    for (const int64_t rows : {0, 1, 7}) check_equal_all_to_all(communicator, rows, 12);
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

TEST_P(InProcessRanks, GatherInOrder) {
  const auto errors = run_in_process(GetParam(), [](Communicator& communicator) {
    for (int repeat = 0; repeat < 100; ++repeat) check_all_gather(communicator, repeat % 7);
    communicator.barrier("test");
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

TEST_P(InProcessRanks, UseWhatOthersLend) {
  const auto errors = run_in_process(GetParam(), [](Communicator& communicator) {
    const auto size = static_cast<std::size_t>(communicator.size());
    std::vector<std::byte> mine(size);
    std::vector<std::byte*> all(size);
    communicator.lend("test", mine.data(), all);
    for (std::byte* const theirs : all) {
      theirs[communicator.rank()] = static_cast<std::byte>(communicator.rank() + 1);
    }
    communicator.give_back();
    for (std::size_t rank = 0; rank < size; ++rank) {
      EXPECT_EQ(mine[rank], static_cast<std::byte>(rank + 1));
    }
  });
  EXPECT_EQ(errors, no_errors(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Sizes, InProcessRanks, testing::Values(1, 2, 4, 7));

TEST(InProcessFaults, ALateRankIsNamed) {
  std::promise<void> others_are_done;
  const auto errors = run_in_process(
      3,
      [&](Communicator& communicator) {
        if (communicator.rank() == 2) return others_are_done.get_future().wait();
        try {
          communicator.barrier("plan");
        } catch (const CommunicationError&) {
          EXPECT_FALSE(communicator.failure().empty());
          if (communicator.rank() == 0) others_are_done.set_value();
          throw;
        }
      },
      kShort);
  EXPECT_EQ(errors[0].find("rank 0, peer "), 0u) << errors[0];
  EXPECT_NE((errors[0] + errors[1]).find("peer 2, plan: not there in time; 3 ranks expected, 2"),
            std::string::npos)
      << errors[0] << errors[1];
  EXPECT_EQ(errors[2], "");
}

TEST(InProcessFaults, ARankThatThrowsEndsTheOthersAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  const auto errors = run_in_process(3, [](Communicator& communicator) {
    communicator.barrier("plan");
    if (communicator.rank() == 1) throw Error("out of luck");
    communicator.barrier("dispatch");
  });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  EXPECT_EQ(errors[1], "out of luck");
  EXPECT_NE(errors[0].find("dispatch: the rank has left the group"), std::string::npos)
      << errors[0];
}

TEST(InProcessFaults, ARankThatThrowsAmidAnExchangeEndsTheOthers) {
  const auto errors = run_in_process(2, [](Communicator& communicator) {
    const int64_t offsets[3] = {0, 0, 0};
    const SentRows sent{{}, {}, {offsets, 3}};
    const ReceivedRows received{{}, {offsets, 3}, {}, {}};
    communicator.start_all_to_all("dispatch", sent, received);
    if (communicator.rank() == 1) throw Error("out of luck");
    communicator.finish_all_to_all();
  });
  EXPECT_EQ(errors[1], "out of luck");
  EXPECT_NE(errors[0].find("peer 1, dispatch"), std::string::npos) << errors[0];
}

TEST(RanksAsThreads, ThrowWhatMadeTheOthersFail) {
  const auto run = [](const CommunicatorOptions& options) {
    run_ranks_as_threads(
        3,
        [](Communicator& communicator) {
          communicator.barrier("before");
          if (communicator.rank() == 2) throw InvalidArgument("out of luck");
          communicator.barrier("after");
        },
        options);
  };
  EXPECT_EQ(refusal<InvalidArgument>([&] { run({}); }), "out of luck");
  EXPECT_EQ(refusal<InvalidArgument>([&] { run({.timeout_ms = 0}); }),
            "timeout_ms is 0, must be 1 or more");
}

TEST(RanksAsThreads, ThrowTheFirstRanksErrorWhereAllFailToMeet) {
  EXPECT_EQ(refusal<CommunicationError>([] {
              run_ranks_as_threads(2, [](Communicator& communicator) {
                communicator.barrier(communicator.rank() == 0 ? "plan" : "combine");
              });
            }).find("rank 0, "),
            0u);
}

TEST(InProcessFaults, AnotherPhaseIsNamed) {
  const auto errors = run_in_process(2, [](Communicator& communicator) {
    communicator.barrier(communicator.rank() == 0 ? "dispatch" : "combine");
  });
  EXPECT_EQ(errors[0],
            "rank 0, peer 1, dispatch: is at all_gather of combine, expected all_gather of "
            "dispatch");
}

TEST(InProcessFaults, OtherCountsAreNamed) {
  const auto errors = run_in_process(2, [](Communicator& communicator) {
    std::vector<std::byte> memory(64);
    const int64_t sent_offsets[3] = {0, 2, 4};
    const int64_t received_offsets[3] = {0, 2, communicator.rank() == 0 ? 5 : 4};
    const SentRows sent{{memory.data(), 4, 4}, {}, {sent_offsets, 3}};
    const ReceivedRows received{{memory.data() + 32, 5, 4}, {received_offsets, 3}, {}, {}};
    communicator.start_all_to_all("combine", sent, received);
    communicator.finish_all_to_all();
  });
  EXPECT_EQ(errors[0], "rank 0, peer 1, combine: sends 2 rows, expected 3");
  EXPECT_NE(errors[1].find("sends 2 rows, expected 3"), std::string::npos) << errors[1];
}

TEST(InProcessFaults, AFailedGroupSaysSo) {
  const auto errors = run_in_process(2, [](Communicator& communicator) {
    if (communicator.rank() == 0) communicator.abort("the server stops");
    try {
      communicator.barrier("plan");
    } catch (const CommunicationError&) {
    }
    communicator.barrier("plan");
  });
  for (const std::string& error : errors) {
    EXPECT_NE(error.find("plan: the communicator is unusable since"), std::string::npos) << error;
    EXPECT_NE(error.find("the server stops"), std::string::npos) << error;
  }
}

TEST(InProcessRefusals, NameTheArgument) {
  EXPECT_EQ(refusal([] { make_in_process_communicators(0); }), "size is 0, must be in [1, 65536]");
  EXPECT_EQ(refusal([] { make_in_process_communicators(1, {.timeout_ms = 0}); }),
            "timeout_ms is 0, must be 1 or more");
  const auto ends = make_in_process_communicators(1);
  Communicator& alone = *ends[0];
  std::vector<std::byte> memory(64);
  const int64_t offsets[2] = {0, 2};
  const int64_t falling[2] = {0, -1};
  const int64_t order[2] = {0, 2};
  const RowSegment segments[1] = {{1, 2}};
  const int64_t segment_offsets[2] = {0, 1};
  const auto start = [&](const SentRows& sent, const ReceivedRows& received) {
    return refusal([&] { alone.start_all_to_all("test", sent, received); });
  };
  const SentRows sent{{memory.data(), 2, 4}, {}, {offsets, 2}};
  const ReceivedRows received{{memory.data() + 32, 2, 4}, {offsets, 2}, {}, {}};
  EXPECT_EQ(start({{memory.data(), 1, 4}, {}, {offsets, 2}}, received),
            "sent.rows has 1 rows, must have 2");
  EXPECT_EQ(start({{memory.data(), 2, 4}, {}, {falling, 2}}, received),
            "sent.offsets[1] is -1, must be at least the one before, 0");
  EXPECT_EQ(start({{memory.data(), 2, 4}, {order, 2}, {offsets, 2}}, received),
            "sent.order[1] is 2, must be in [0, 2)");
  EXPECT_EQ(start({{memory.data(), 2, 4, 3}, {}, {offsets, 2}}, received),
            "sent.rows has row_stride 3, must be at least its 4 columns");
  EXPECT_EQ(start({{nullptr, 2, 4}, {}, {offsets, 2}}, received), "sent.rows is a null pointer");
  EXPECT_EQ(start(sent, {{memory.data(), 2, 8}, {offsets, 2}, {}, {}}),
            "received.rows has 8 bytes a row, must have 4");
  EXPECT_EQ(start(sent, {{memory.data(), 2, 4}, {offsets, 1}, {}, {}}),
            "received.offsets has 1 elements, must have 2");
  EXPECT_EQ(start(sent, {{memory.data(), 2, 4}, {offsets, 2}, {segments, 1}, {segment_offsets, 2}}),
            "received.segments[0] holds 2 rows from 1 on, must lie in [0, 2)");
  EXPECT_EQ(refusal([&] { alone.all_gather("test", memory, {}); }),
            "all holds 0 bytes, must hold 1 times 64");
  EXPECT_EQ(refusal([&] { alone.finish_all_to_all(); }),
            "finish_all_to_all comes without a start_all_to_all");
  EXPECT_EQ(refusal([&] { alone.give_back(); }), "give_back comes without a lend");
  EXPECT_EQ(start(sent, received), "");
  EXPECT_EQ(refusal([&] { alone.barrier("plan"); }), "plan cannot begin while test is under way");
  alone.finish_all_to_all();
  EXPECT_EQ(alone.failure(), "");
}

}  // namespace
}  // namespace switchyard::test
