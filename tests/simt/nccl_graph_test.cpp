// Exchanges over the NCCL transport in CUDA graphs.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <vector>

#include "switchyard/errors.h"
#include "tests/captured_exchange.h"
#include "tests/simt/nccl_ranks.h"

namespace switchyard::test {
namespace {

using simt::StreamOrder;

struct GraphCase {
  int num_ranks = 2;
  StreamOrder order = StreamOrder::kEager;
  bool deduplicate = false;
  bool has_scales = false;
};

std::string name_of(const testing::TestParamInfo<GraphCase>& info) {
  const char* const names[] = {"Eager", "Deferred", "Random"};
  const GraphCase& c = info.param;
  return std::string(names[static_cast<int>(c.order)]) + std::to_string(c.num_ranks) +
         (c.deduplicate ? "Deduplicated" : "") + (c.has_scales ? "Scaled" : "");
}

std::vector<GraphCase> graph_cases() {
  std::vector<GraphCase> cases;
  for (const int num_ranks : {1, 2, 4}) {
    for (const auto order : {StreamOrder::kEager, StreamOrder::kDeferred, StreamOrder::kRandom}) {
      for (const bool deduplicate : {false, true}) {
        cases.push_back({num_ranks, order, deduplicate, deduplicate == (num_ranks == 2)});
      }
    }
  }
  return cases;
}

class SimtNcclGraphs : public SimtNccl, public testing::WithParamInterface<GraphCase> {
 protected:
  SimtNcclGraphs() { simt::settings().stream_order = GetParam().order; }
};

INSTANTIATE_TEST_SUITE_P(Cases, SimtNcclGraphs, testing::ValuesIn(graph_cases()), name_of);

TEST_P(SimtNcclGraphs, RepeatAnExchangeWithOtherRows) {
  const auto errors = run_nccl(GetParam().num_ranks, [&](Communicator& communicator) {
    check_captured_exchange(communicator, GetParam().deduplicate, GetParam().has_scales);
  });
  EXPECT_EQ(errors, no_errors(GetParam().num_ranks));
}

TEST_P(SimtNcclGraphs, RepeatAllToAlls) {
  const auto errors = run_nccl(GetParam().num_ranks, check_captured_all_to_all);
  EXPECT_EQ(errors, no_errors(GetParam().num_ranks));
}

TEST_F(SimtNccl, ACapturedStreamIsNotWaitedFor) {
  const auto errors = run_nccl(2, [](Communicator& communicator) {
    const Stream stream;
    ExchangedBatch batch(communicator, false, false);
    batch.fill();
    RankGraph graph;
    graph.capture(stream.handle, [&] {
      EXPECT_TRUE(communicator.is_captured(stream.handle));
      EXPECT_THROW(communicator.wait("test", stream.handle), InvalidArgument);
      batch.enqueue(stream.handle);  // both go on
    });
    EXPECT_FALSE(communicator.is_captured(stream.handle));
    graph.launch(stream.handle);
    communicator.wait("test", stream.handle);
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST_F(SimtNccl, APlanInACapturedStreamIsRefusedOnEveryRank) {
  const auto errors = run_nccl(2, [](Communicator& communicator) {
    const Stream stream;
    ExpertExchange exchange(
        {.placement = ExpertPlacement::contiguous(4, 2), .top_k = 2, .max_tokens = 3},
        communicator);
    AllToAllPlan plan = exchange.make_plan();
    const Buffer<int32_t> ids(2, Backend::kCuda);
    Buffer<std::byte> workspace(exchange.plan_workspace_bytes(), Backend::kCuda);
    const auto make_plan = [&] {
      exchange.plan(ids.matrix(1, 2), plan, workspace.bytes(), stream.handle);
    };
    const auto refusal = [&] {
      try {
        make_plan();
      } catch (const InvalidArgument& error) {
        return std::string(error.what());
      }
      return std::string();
    };
    RankGraph graph;
    if (communicator.rank() == 0) {
      EXPECT_EQ(refusal(),
                "plan, rank 1: stream is being captured, must not be: a plan waits for it");
    } else {
      graph.capture(stream.handle, [&] { EXPECT_NE(refusal(), ""); });
    }
    make_plan();
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST_F(SimtNccl, ALaunchMeetsNoOtherExchange) {
  const auto errors =
      run_nccl(2,
               [](Communicator& communicator) {
                 const Stream stream;
                 ExchangedBatch batch(communicator, false, false);
                 RankGraph graph;
                 graph.capture(stream.handle, [&] { batch.enqueue(stream.handle); });
                 if (communicator.rank() == 0) {
                   graph.launch(stream.handle);
                 } else {
                   batch.enqueue(stream.handle);
                 }
                 communicator.wait("test", stream.handle);
               },
               {.timeout_ms = 2000});
  for (const std::string& error : errors) {
    EXPECT_NE(error.find("of the graph's operation"), error.npos) << error;
  }
}

TEST_F(SimtNccl, ACaptureMustNotEndWhileACallIsInProgress) {
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  std::atomic<bool> has_ended = false;
  const auto errors = run_threads(2, [&](int rank) {
    const Stream stream;
    ncclComm_t comm = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const auto settle = [&](ncclResult_t result) {
      while (result == ncclInProgress) {
        if (ncclCommGetAsyncError(comm, &result) != ncclSuccess) return ncclInternalError;
      }
      return result;
    };
    ASSERT_EQ(settle(ncclCommInitRankConfig(&comm, 2, id, rank, &config)), ncclSuccess);
    const DeviceArray<char> memory(8);
    RankGraph graph;
    ncclResult_t result = ncclInProgress;
    if (rank == 1) {
      while (!has_ended) std::this_thread::yield();
    }
    graph.capture(stream.handle, [&] {
      result = ncclAllGather(memory.data(), memory.data(), 4, ncclUint8, comm, stream.handle);
      if (rank == 1) result = settle(result);
    });
    has_ended = true;
    EXPECT_EQ(settle(result), rank == 0 ? ncclInvalidUsage : ncclSuccess);
    EXPECT_EQ(ncclCommAbort(comm), ncclSuccess);
  });
  EXPECT_EQ(errors, no_errors(2));
}

}  // namespace
}  // namespace switchyard::test
