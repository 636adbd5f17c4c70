// The NCCL transport between threads: rows arrive, in stream order, and the exchange gives the bits
// of one rank with its kernels on the executor.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>

#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "tests/communicator_case.h"
#include "tests/exchange_case.h"
#include "tests/simt/nccl_ranks.h"

namespace switchyard::test {
namespace {

using simt::StreamOrder;

int64_t uneven(int source, int destination) { return (source * 5 + destination * 3) % 11; }
int64_t none(int, int) { return 0; }
int64_t all_to_last(int source, int destination) { return destination == 3 ? source + 2 : 0; }
int64_t last_sends_nothing(int source, int destination) { return source == 3 ? 0 : destination; }
int64_t one(int, int) { return 1; }

class SimtNcclRanks : public SimtNccl,
                      public testing::WithParamInterface<std::tuple<int, StreamOrder>> {
 protected:
  SimtNcclRanks() { simt::settings().stream_order = std::get<1>(GetParam()); }

  [[nodiscard]] static int num_ranks() { return std::get<0>(GetParam()); }
};

std::string name_of(const testing::TestParamInfo<std::tuple<int, StreamOrder>>& parameters) {
  const char* const names[] = {"Eager", "Deferred", "Random"};
  const auto [num_ranks, order] = parameters.param;
  return names[static_cast<int>(order)] + std::to_string(num_ranks);
}

INSTANTIATE_TEST_SUITE_P(Sizes, SimtNcclRanks,
                         testing::Combine(testing::Values(1, 2, 4),
                                          testing::Values(StreamOrder::kEager,
                                                          StreamOrder::kDeferred,
                                                          StreamOrder::kRandom)),
                         name_of);

TEST_P(SimtNcclRanks, ExchangeRows) {
  const auto errors = run_nccl(num_ranks(), [](Communicator& communicator) {
    EXPECT_STREQ(communicator.transport(), "nccl");
    EXPECT_EQ(communicator.backend(), Backend::kCuda);
    for (const RowCount count : {uneven, none, all_to_last, last_sends_nothing}) {
      for (const int64_t row_bytes : {0, 1, 16, 300}) {
        check_all_to_all(communicator, count, row_bytes, false);
      }
    }
  });
  EXPECT_EQ(errors, no_errors(num_ranks()));
}

TEST_P(SimtNcclRanks, ExchangeEqualNumbersOfRows) {
  const auto errors = run_nccl(num_ranks(), [](Communicator& communicator) {
    for (const int64_t rows : {0, 1, 7}) check_equal_all_to_all(communicator, rows, 12);
  });
  EXPECT_EQ(errors, no_errors(num_ranks()));
  EXPECT_EQ(simt::nccl_statistics().all_to_alls, 2 * num_ranks());
}

TEST_P(SimtNcclRanks, GatherInOrder) {
  const auto errors = run_nccl(num_ranks(), [](Communicator& communicator) {
    // What fits the first message, what fills it, and what takes several more.
    for (const int64_t bytes : {0, 1, 7, 959, 960, 961, 33'000, 100'000}) {
      check_all_gather(communicator, bytes);
    }
    communicator.barrier("test");
  });
  EXPECT_EQ(errors, no_errors(num_ranks()));
}

TEST_P(SimtNcclRanks, GiveTheBitsOfOneRank) {
  for (const ExchangeCase& exchange_case : exchange_cases(num_ranks())) {
    const auto errors = run_nccl(num_ranks(), [&](Communicator& communicator) {
      check_exchange(communicator, exchange_case);
    });
    EXPECT_EQ(errors, no_errors(num_ranks()));
  }
}

TEST_P(SimtNcclRanks, FollowTheCallersStream) {
  const auto errors = run_nccl(num_ranks(), [](Communicator& communicator) {
    const auto size = static_cast<std::size_t>(communicator.size());
    cudaStream_t stream = nullptr;
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    Buffer<std::byte> source(communicator.size(), Backend::kCuda);
    Buffer<std::byte> sent(communicator.size(), Backend::kCuda);
    Buffer<std::byte> received(communicator.size(), Backend::kCuda);
    Buffer<std::byte> result(communicator.size(), Backend::kCuda);
    for (int round = 0; round < 5; ++round) {
      std::fill(source.begin(), source.end(),
                static_cast<std::byte>(10 * round + communicator.rank()));
      cudaMemcpyAsync(sent.data(), source.data(), size, cudaMemcpyDeviceToDevice, stream);
      communicator.start_equal_all_to_all("test", {sent.data(), sent.size(), 1},
                                          {received.data(), received.size(), 1}, 1, stream);
      communicator.finish_all_to_all(stream);
      cudaMemcpyAsync(result.data(), received.data(), size, cudaMemcpyDeviceToDevice, stream);
      communicator.wait("test", stream);
      for (int peer = 0; peer < communicator.size(); ++peer) {
        ASSERT_EQ(result[peer], static_cast<std::byte>(10 * round + peer));
      }
    }
    ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  });
  EXPECT_EQ(errors, no_errors(num_ranks()));
}

/// One row for every rank.
struct OneRowEach {
  explicit OneRowEach(const Communicator& communicator)
      : sent(communicator.size(), Backend::kCuda), received(communicator.size(), Backend::kCuda) {
    for (int64_t i = 0; i <= communicator.size(); ++i) offsets.push_back(i);
  }
  void start(Communicator& communicator) {
    const VectorView<const int64_t> view{offsets.data(), static_cast<int64_t>(offsets.size())};
    communicator.start_all_to_all("test", {{sent.data(), sent.size(), 1}, {}, view},
                                  {{received.data(), received.size(), 1}, view, {}, {}});
  }

  Buffer<std::byte> sent;
  Buffer<std::byte> received;
  std::vector<int64_t> offsets;
};

TEST_F(SimtNccl, AnExchangeDoesNotWaitOnTheHostForARankThatIsLate) {
  std::atomic<bool> has_finished = false;
  const auto errors = run_nccl(2, [&](Communicator& communicator) {
    check_all_to_all(communicator, one, 1, false);  // connects
    OneRowEach rows(communicator);
    if (communicator.rank() == 1) {
      while (!has_finished) std::this_thread::yield();
    }
    rows.start(communicator);
    communicator.finish_all_to_all();
    EXPECT_EQ(cudaStreamQuery(nullptr) == cudaErrorNotReady, communicator.rank() == 0);
    has_finished = true;
    communicator.wait("test");
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST_F(SimtNccl, GroupsAreBootstrappedByOtherGroups) {
  auto ends = make_in_process_communicators(2);
  const auto errors = run_threads(2, [&](int rank) {
    Communicator& bootstrap = *ends[static_cast<std::size_t>(rank)];
    const auto communicator = make_nccl_communicator(bootstrap);
    EXPECT_EQ(communicator->rank(), rank);
    EXPECT_EQ(communicator->size(), 2);
    check_all_to_all(*communicator, uneven, 9, false);
    bootstrap.barrier("test");
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST_F(SimtNccl, PlansCountInPageLockedMemory) {
  const auto errors = run_nccl(2, [](Communicator& communicator) {
    ExpertExchange exchange(
        {.placement = ExpertPlacement::contiguous(4, 2), .top_k = 2, .max_tokens = 3},
        communicator);
    const AllToAllPlan plan = exchange.make_plan();
    for (const int64_t* table : {plan.tokens_per_expert().data, plan.expert_offsets().data}) {
      cudaPointerAttributes attributes{};
      ASSERT_EQ(cudaPointerGetAttributes(&attributes, table), cudaSuccess);
      EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
      EXPECT_EQ(attributes.devicePointer, table);
    }
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST_F(SimtNccl, ALibraryWithoutAllToAllSendsAndReceives) {
  simt::nccl_settings().version = 22'703;
  const auto errors =
      run_nccl(2, [](Communicator& communicator) { check_equal_all_to_all(communicator, 3, 4); });
  EXPECT_EQ(errors, no_errors(2));
  EXPECT_EQ(simt::nccl_statistics().all_to_alls, 0);
  EXPECT_EQ(simt::nccl_statistics().transfers, 4);
}

TEST_F(SimtNccl, ABorrowedCommunicatorStaysTheCallers) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  const auto errors = run_threads(2, [&](int rank) {
    ncclComm_t comm = nullptr;
    ASSERT_EQ(ncclCommInitRank(&comm, 2, id, rank), ncclSuccess);
    for (int repeat = 0; repeat < 2; ++repeat) {
      const auto communicator = borrow_nccl_communicator(comm);
      EXPECT_EQ(communicator->rank(), rank);
      check_all_to_all(*communicator, uneven, 9, false);
      check_all_gather(*communicator, 100);
    }
    EXPECT_EQ(simt::nccl_statistics().destroyed + simt::nccl_statistics().aborted, 0);
    const auto communicator = borrow_nccl_communicator(comm);
    communicator->barrier("test");
    communicator->abort("enough");
    EXPECT_EQ(simt::nccl_statistics().aborted, 0);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  });
  EXPECT_EQ(errors, no_errors(2));
  EXPECT_EQ(simt::nccl_statistics().created, 2);
  simt::reset_nccl();  // the caller would destroy them
}

}  // namespace
}  // namespace switchyard::test
