// What goes wrong between NCCL ranks ends every wait by the deadline, says where, and ends the
// group.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <atomic>

#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "switchyard/expert_exchange.h"
#include "tests/communicator_case.h"
#include "tests/simt/nccl_ranks.h"

namespace switchyard::test {
namespace {

// Long enough for ranks that do come on a machine that is busy elsewhere.
constexpr CommunicatorOptions kShort{.timeout_ms = 2000};

int64_t one(int, int) { return 1; }
/// Rank 1 sends more than rank 0 expects: what counts say depends on who asks.
thread_local int rank_of_thread = 0;
int64_t disagreeing(int source, int) { return source == 1 && rank_of_thread == 1 ? 2 : 1; }

template <typename Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class SimtNcclFaults : public SimtNccl {};

TEST_F(SimtNcclFaults, ARankThatNeverStartsIsMissed) {
  const NcclUniqueId id = create_nccl_unique_id();
  EXPECT_EQ(error_of([&] { make_nccl_communicator(id, 0, 2, kShort); }),
            "rank 0 of 2, start: the other ranks did not come within 2000 ms "
            "(ncclCommInitRankConfig is in progress)");
}

TEST_F(SimtNcclFaults, ARankThatDoesNotComeToAGatherIsMissed) {
  for (const bool is_connected : {false, true}) {
    std::atomic<bool> is_over = false;
    const auto errors = run_nccl(
        2,
        [&](Communicator& communicator) {
          if (is_connected) communicator.barrier("before");
          if (communicator.rank() == 1) {
            while (!is_over) std::this_thread::yield();
            return;
          }
          const std::string error = error_of([&] { communicator.barrier("plan"); });
          EXPECT_EQ(
              error,
              std::string("rank 0, plan: the other ranks did not come within 2000 ms ") +
                  (is_connected ? "(the stream is not done)" : "(ncclAllGather is in progress)"));
          EXPECT_EQ(error_of([&] { communicator.barrier("next"); }),
                    "rank 0, next: the communicator is unusable since " + error);
          is_over = true;
        },
        kShort);
    EXPECT_EQ(errors, no_errors(2));
  }
}

TEST_F(SimtNcclFaults, ARankThatDoesNotComeToAnExchangeIsMissed) {
  for (const bool is_connected : {false, true}) {
    std::atomic<bool> is_over = false;
    const auto errors = run_nccl(
        2,
        [&](Communicator& communicator) {
          if (is_connected) check_all_to_all(communicator, one, 1, false);
          if (communicator.rank() == 1) {
            while (!is_over) std::this_thread::yield();
            return;
          }
          const std::string error =
              error_of([&] { check_all_to_all(communicator, one, 1, false); });
          EXPECT_EQ(
              error,
              std::string("rank 0, test: the other ranks did not come within 2000 ms ") +
                  (is_connected ? "(the stream is not done)" : "(ncclGroupEnd is in progress)"));
          // The device goes on.
          EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
          is_over = true;
        },
        kShort);
    EXPECT_EQ(errors, no_errors(2));
  }
}

TEST_F(SimtNcclFaults, ARankThatThrowsEndsTheOthers) {
  for (const bool tells_of_aborts : {false, true}) {
    simt::nccl_settings().tells_of_aborts = tells_of_aborts;
    const auto errors = run_nccl(
        3,
        [](Communicator& communicator) {
          communicator.barrier("before");
          if (communicator.rank() == 1) throw Error("out of luck");
          communicator.barrier("plan");
        },
        kShort);
    EXPECT_EQ(errors[1], "out of luck");
    for (const std::string& error : {errors[0], errors[2]}) {
      // Rank 1 may be gone before the others have seen the end of their first barrier.
      EXPECT_TRUE(holds(error, ", plan: ") || (tells_of_aborts && holds(error, ", before: ")))
          << error;
      EXPECT_TRUE(holds(error, "closed the connection") ||
                  (!tells_of_aborts && holds(error, "did not come within 2000 ms")))
          << error;
    }
  }
}

TEST_F(SimtNcclFaults, CountsThatDisagreeFailBothRanks) {
  for (const bool is_connected : {false, true}) {
    const auto errors = run_nccl(
        2,
        [&](Communicator& communicator) {
          rank_of_thread = communicator.rank();
          if (is_connected) check_all_to_all(communicator, one, 4, false);
          check_all_to_all(communicator, disagreeing, 4, false);
        },
        kShort);
    for (const std::string& error : errors) {
      EXPECT_TRUE(holds(error, ", test: ")) << error;
      EXPECT_TRUE(holds(error, "rank 1 sends 8 bytes to rank 0, which receives 4") ||
                  holds(error, "closed the connection"))
          << error;
    }
    EXPECT_TRUE(holds(errors[0] + errors[1], "rank 1 sends 8 bytes to rank 0, which receives 4"));
  }
}

TEST_F(SimtNcclFaults, GathersThatDisagreeNameThePeer) {
  simt::nccl_settings().tells_of_aborts = false;  // who fails first would end the other's wait
  const auto phases = run_nccl(
      2,
      [](Communicator& communicator) {
        communicator.barrier(communicator.rank() == 0 ? "plan" : "combine");
      },
      kShort);
  EXPECT_EQ(phases[0],
            "rank 0, peer 1, plan: is at all_gather of combine, expected all_gather of plan");
  EXPECT_EQ(phases[1],
            "rank 1, peer 0, combine: is at all_gather of plan, expected all_gather of combine");
  const auto sizes = run_nccl(
      2,
      [](Communicator& communicator) {
        check_all_gather(communicator, communicator.rank() == 0 ? 5 : 50'000);
      },
      kShort);
  EXPECT_EQ(sizes[0], "rank 0, peer 1, test: gives 50000 bytes to all_gather, expected 5");
  EXPECT_EQ(sizes[1], "rank 1, peer 0, test: gives 5 bytes to all_gather, expected 50000");
}

TEST_F(SimtNcclFaults, AnErrorThatComesLaterEndsTheGroup) {
  const auto errors = run_nccl(1, [](Communicator& communicator) {
    communicator.barrier("before");
    simt::break_nccl_rank(0, ncclSystemError, "a cable was pulled");
    const std::string error = error_of([&] { communicator.wait("dispatch"); });
    EXPECT_EQ(error, "rank 0, dispatch: unhandled system error: a cable was pulled");
    EXPECT_EQ(communicator.failure(), error);
    EXPECT_EQ(simt::nccl_statistics().aborted, 1);
    EXPECT_EQ(error_of([&] { check_all_to_all(communicator, one, 1, false); }),
              "rank 0, test: the communicator is unusable since " + error);
  });
  EXPECT_EQ(errors, no_errors(1));
}

TEST_F(SimtNcclFaults, AnErrorIsSeenWhenAnExchangeIsFinished) {
  const auto errors = run_nccl(1, [](Communicator& communicator) {
    Buffer<std::byte> rows(2, Backend::kCuda);
    communicator.start_equal_all_to_all("dispatch", {rows.data(), 1, 1}, {rows.data() + 1, 1, 1},
                                        1);
    simt::break_nccl_rank(0, ncclInternalError, "out of luck");
    communicator.finish_all_to_all();
  });
  EXPECT_EQ(errors[0], "rank 0, dispatch: internal error: out of luck");
}

TEST_F(SimtNcclFaults, APlanDoesNotHangForARankThatIsGone) {
  const auto errors = run_nccl(
      2,
      [](Communicator& communicator) {
        ExpertExchange exchange(
            {.placement = ExpertPlacement::contiguous(4, 2), .top_k = 1, .max_tokens = 2},
            communicator);
        AllToAllPlan plan = exchange.make_plan();
        Buffer<int32_t> ids(2, Backend::kCuda);
        ids[0] = 3;
        Buffer<std::byte> workspace(exchange.plan_workspace_bytes(), Backend::kCuda);
        exchange.plan(std::as_const(ids).matrix(2, 1), plan, workspace.bytes());
        Buffer<std::byte> tokens(2, Backend::kCuda);
        Buffer<std::byte> expert_rows(plan.num_expert_rows(), Backend::kCuda);
        Buffer<std::byte> memory(exchange.dispatch_workspace_bytes(plan, 1), Backend::kCuda);
        const auto dispatch = [&] {
          exchange.start_dispatch(
              plan, {{tokens.data(), 2, 1}, {expert_rows.data(), expert_rows.size(), 1}}, {},
              memory.bytes());
          exchange.finish_dispatch();
        };
        dispatch();
        communicator.wait("test");
        communicator.barrier("test");
        if (communicator.rank() == 1) throw Error("out of luck");
        dispatch();
        exchange.plan(std::as_const(ids).matrix(2, 1), plan, workspace.bytes());
      },
      kShort);
  EXPECT_EQ(errors[1], "out of luck");
  EXPECT_TRUE(holds(errors[0], "rank 0, ")) << errors[0];
}

TEST_F(SimtNcclFaults, RowsWithGapsAreRefusedBeforeAnythingIsSent) {
  const auto errors = run_nccl(1, [](Communicator& communicator) {
    Buffer<std::byte> rows(32, Backend::kCuda);
    const int64_t offsets[2] = {0, 2};
    const SentRows dense{{rows.data(), 2, 4}, {}, {offsets, 2}};
    const SentRows strided{{rows.data(), 2, 4, 5}, {}, {offsets, 2}};
    const ReceivedRows received{{rows.data() + 16, 2, 4}, {offsets, 2}, {}, {}};
    const ReceivedRows received_strided{{rows.data() + 16, 2, 4, 6}, {offsets, 2}, {}, {}};
    EXPECT_EQ(error_of([&] { communicator.start_all_to_all("test", strided, received); }),
              "sent.rows has row_stride 5, must be its 4 columns: nccl moves contiguous rows only");
    EXPECT_EQ(error_of([&] { communicator.start_all_to_all("test", dense, received_strided); }),
              "received.rows has row_stride 6, must be its 4 columns: nccl moves contiguous rows "
              "only");
    communicator.start_all_to_all("test", dense, received);
    communicator.finish_all_to_all();
    communicator.wait("test");
  });
  EXPECT_EQ(errors, no_errors(1));
}

TEST_F(SimtNcclFaults, ALibraryOfAnotherVersionIsUnavailable) {
  simt::nccl_settings().version = 21'703;
  const std::string compiled = std::to_string(NCCL_MAJOR) + "." + std::to_string(NCCL_MINOR) + "." +
                               std::to_string(NCCL_PATCH);
  EXPECT_EQ(error_of([] { create_nccl_unique_id(); }),
            "NCCL 2.17.3 was found, must be 2.18.0 or later of version 2; this was compiled with " +
                compiled);
  simt::nccl_settings().version = 30'000;
  EXPECT_THROW(make_nccl_communicator(NcclUniqueId{}, 0, 1), Unavailable);
  simt::nccl_settings().version = 2'708;
  EXPECT_TRUE(holds(error_of([] { create_nccl_unique_id(); }), "NCCL 2.7.8 was found"));
  auto ends = make_in_process_communicators(2);
  const auto errors = run_threads(
      2, [&](int rank) { make_nccl_communicator(*ends[static_cast<std::size_t>(rank)]); });
  for (const std::string& error : errors) {
    EXPECT_TRUE(holds(error, "rank 0: NCCL 2.7.8 was found")) << error;
  }
}

TEST_F(SimtNcclFaults, TwoRanksOfADeviceAreRefused) {
  const NcclUniqueId id = create_nccl_unique_id();
  const auto errors = run_threads(2, [&](int rank) {
    ASSERT_EQ(cudaSetDevice(3), cudaSuccess);
    make_nccl_communicator(id, rank, 2, kShort);
  });
  for (const std::string& error : errors) {
    EXPECT_TRUE(holds(error, "Duplicate GPU detected") || holds(error, "closed the connection"))
        << error;
  }
}

TEST_F(SimtNcclFaults, RefusalsNameTheArgument) {
  const NcclUniqueId id = create_nccl_unique_id();
  EXPECT_EQ(error_of([&] { make_nccl_communicator(id, 0, 0); }), "size is 0, must be 1 or more");
  EXPECT_EQ(error_of([&] { make_nccl_communicator(id, 2, 2); }), "rank is 2, must be in [0, 1]");
  EXPECT_EQ(error_of([&] { make_nccl_communicator(id, 0, 1, {.timeout_ms = 0}); }),
            "timeout_ms is 0, must be 1 or more");
  EXPECT_EQ(error_of([] { borrow_nccl_communicator(nullptr); }), "comm is a null pointer");
  simt::settings().num_devices = 0;
  EXPECT_TRUE(holds(error_of([&] { make_nccl_communicator(id, 0, 1); }), "no CUDA device"));
}

TEST_F(SimtNcclFaults, AFailedBorrowedCommunicatorIsNotAborted) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  std::atomic<bool> is_over = false;
  const auto errors = run_threads(2, [&](int rank) {
    ncclComm_t comm = nullptr;
    ASSERT_EQ(ncclCommInitRank(&comm, 2, id, rank), ncclSuccess);
    auto communicator = borrow_nccl_communicator(comm, kShort);
    communicator->barrier("before");
    if (rank == 1) {
      while (!is_over) std::this_thread::yield();
      communicator.reset();
    } else {
      EXPECT_NE(error_of([&] { communicator->barrier("plan"); }), "");
      EXPECT_EQ(simt::nccl_statistics().aborted, 0);
      communicator.reset();  // which waits for nothing
      is_over = true;
    }
    EXPECT_EQ(ncclCommAbort(comm), ncclSuccess);
  });
  EXPECT_EQ(errors, no_errors(2));
}

}  // namespace
}  // namespace switchyard::test
