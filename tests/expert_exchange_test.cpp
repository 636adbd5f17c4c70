// Dispatch and combine between threads, in every way in which a transport may move rows; and that
// what one rank refuses, all refuse.
#include "switchyard/expert_exchange.h"

#include <gtest/gtest.h>

#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "tests/exchange_case.h"
#include "tests/limited_communicator.h"
#include "tests/rank_threads.h"

namespace switchyard::test {
namespace {

enum class Ability { kLends, kScatters, kNeither };

std::vector<std::string> run_with(Ability ability, int num_ranks, const RankBody& body) {
  std::vector<std::unique_ptr<Communicator>> ends = make_in_process_communicators(num_ranks);
  if (ability != Ability::kLends) {
    for (std::unique_ptr<Communicator>& end : ends) {
      end = std::make_unique<LimitedCommunicator>(std::move(end), ability == Ability::kScatters);
    }
  }
  return run_ranks(std::move(ends), body);
}

class ExpertExchangeRanks : public testing::TestWithParam<std::tuple<Ability, int>> {};

TEST_P(ExpertExchangeRanks, GiveTheBitsOfOneRank) {
  const auto [ability, num_ranks] = GetParam();
  for (const ExchangeCase& exchange_case : exchange_cases(num_ranks)) {
    const auto errors = run_with(ability, num_ranks, [&](Communicator& communicator) {
      check_exchange(communicator, exchange_case);
    });
    EXPECT_EQ(errors, no_errors(num_ranks));
  }
}

std::string name_of(const testing::TestParamInfo<std::tuple<Ability, int>>& parameters) {
  const char* const names[] = {"Lent", "Scattered", "Contiguous"};
  const auto [ability, num_ranks] = parameters.param;
  return names[static_cast<int>(ability)] + std::to_string(num_ranks);
}

TEST(ExpertExchange, TakesSharedMemoryFromThreadsToo) {
  ExchangeCase exchange_case = exchange_cases(3)[0];
  exchange_case.shares_rows = true;
  EXPECT_EQ(
      run_in_process(
          3, [&](Communicator& communicator) { check_exchange(communicator, exchange_case); }),
      no_errors(3));
}

INSTANTIATE_TEST_SUITE_P(Sizes, ExpertExchangeRanks,
                         testing::Combine(testing::Values(Ability::kLends, Ability::kScatters,
                                                          Ability::kNeither),
                                          testing::Values(1, 2, 3, 4, 8)),
                         name_of);

ExpertExchangeConfig config_for(int num_ranks) {
  return {.placement = ExpertPlacement::contiguous(4, num_ranks), .top_k = 2, .max_tokens = 4};
}

/// One rank of an exchange, with memory for a batch of two tokens.
struct SmallRank {
  explicit SmallRank(Communicator& communicator, const ExpertExchangeConfig& config = config_for(2))
      : exchange(config, communicator),
        plan(exchange.make_plan()),
        workspace(exchange.plan_workspace_bytes()) {}

  void make_plan() { exchange.plan({ids, 2, 2}, plan, workspace.bytes()); }
  void prepare() {
    make_plan();
    memory = Buffer<std::byte>(exchange.dispatch_workspace_bytes(plan, 4) +
                               exchange.combine_workspace_bytes(plan, 1, DataType::kFloat32));
    expert_rows = Buffer<float>(plan.num_expert_rows());
  }
  [[nodiscard]] DispatchRows rows() {
    return {{reinterpret_cast<const std::byte*>(tokens), 2, 4},
            {reinterpret_cast<std::byte*>(expert_rows.data()), expert_rows.size(), 4}};
  }
  void dispatch(const DispatchRows& what) {
    exchange.start_dispatch(plan, what, {}, memory.bytes());
    exchange.finish_dispatch();
  }
  void combine() {
    exchange.start_combine(plan,
                           {std::as_const(expert_rows).matrix(expert_rows.size(), 1),
                            {},
                            MatrixView<float>(tokens, 2, 1)},
                           memory.bytes());
    exchange.finish_combine();
  }

  int32_t ids[4] = {0, 3, 2, 1};
  float tokens[2] = {1.0f, 2.0f};
  ExpertExchange exchange;
  AllToAllPlan plan;
  Buffer<std::byte> workspace;
  Buffer<std::byte> memory;
  Buffer<float> expert_rows;
};

/// What both ranks of two say when `body` runs on them.
std::string refusal_of_both(const RankBody& body, Ability ability = Ability::kLends) {
  const auto errors = run_with(ability, 2, [&](Communicator& communicator) {
    body(communicator);
    ADD_FAILURE() << "rank " << communicator.rank() << " refused nothing";
  });
  EXPECT_EQ(errors[0], errors[1]);
  return errors[0];
}

TEST(ExpertExchangeRefusals, OfAConfigurationThatDiffers) {
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              ExpertExchangeConfig config = config_for(2);
              config.top_k = 2 + communicator.rank();
              const ExpertExchange exchange(config, communicator);
            }),
            "configure, rank 1: top_k is 3, expected 2 as on rank 0");
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              ExpertExchangeConfig config = config_for(2);
              if (communicator.rank() == 1) config.placement = ExpertPlacement::contiguous(5, 2);
              const ExpertExchange exchange(config, communicator);
            }),
            "configure, rank 1: placement.num_experts is 5, expected 4 as on rank 0");
}

TEST(ExpertExchangeRefusals, OfAConfigurationThatOneRankCannotTake) {
  const auto refusal_of = [](const std::function<void(ExpertExchangeConfig&)>& change) {
    return refusal_of_both([&](Communicator& communicator) {
      ExpertExchangeConfig config = config_for(2);
      if (communicator.rank() == 1) change(config);
      const ExpertExchange exchange(config, communicator);
    });
  };
  EXPECT_EQ(refusal_of([](auto& config) { config.placement = ExpertPlacement::contiguous(4, 3); }),
            "configure, rank 1: placement is for 3 ranks, must be for the communicator's 2");
  EXPECT_EQ(refusal_of([](auto& config) {
              config.placement = ExpertPlacement::from_slots(1, 2, std::vector<int32_t>(4098));
            }),
            "configure, rank 1: placement.num_slots is 4098, must be in [1, 4096]");
  EXPECT_EQ(refusal_of([](auto& config) { config.top_k = 0; }),
            "configure, rank 1: top_k is 0, must be in [1, 128]");
  EXPECT_EQ(refusal_of([](auto& config) { config.block_rows = 0; }),
            "configure, rank 1: block_rows is 0, must be in [1, 256]");
  EXPECT_EQ(refusal_of([](auto& config) { config.max_expert_rows = -2; }),
            "configure, rank 1: max_expert_rows is -2, must be -1 or more");
  EXPECT_EQ(refusal_of([](auto& config) { config.capacity.drop_policy = DropPolicy::kWeight; }),
            "configure, rank 1: capacity.drop_policy is by weight, must be by position");
}

TEST(ExpertExchangeRefusals, OfABatchThatOneRankCannotTake) {
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              if (communicator.rank() == 1) rank.ids[3] = 4;
              rank.make_plan();
            }),
            "plan, rank 1: expert_ids of token 1, slot 1 is 4, must be in [-1, 3]");
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              std::vector<int32_t> ids(10);
              rank.exchange.plan({ids.data(), communicator.rank() == 1 ? 5 : 2, 2}, rank.plan,
                                 rank.workspace.bytes());
            }),
            "plan, rank 1: expert_ids has 5 rows, must have at most max_tokens, 4");
  const std::string small = refusal_of_both([](Communicator& communicator) {
    SmallRank rank(communicator);
    if (communicator.rank() == 0) rank.workspace = Buffer<std::byte>(1);
    rank.make_plan();
  });
  EXPECT_EQ(small.find("plan, rank 0: workspace holds 1 bytes, must hold "), 0u) << small;
}

TEST(ExpertExchangeRefusals, OfRowsThatOneRankCannotTake) {
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              rank.prepare();
              DispatchRows rows = rank.rows();
              if (communicator.rank() == 1) rows.expert_rows.rows -= 1;
              rank.dispatch(rows);
            }),
            "dispatch, rank 1: rows.expert_rows has 3 rows, must have 4 or more");
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              rank.prepare();
              DispatchRows rows = rank.rows();
              if (communicator.rank() == 0) rows.tokens.rows = 1;
              rank.dispatch(rows);
            }),
            "dispatch, rank 0: rows.tokens has 1 rows, must have 2");
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              rank.prepare();
              DispatchRows rows = rank.rows();
              if (communicator.rank() == 1) rows.tokens.cols = rows.expert_rows.cols = 2;
              rank.dispatch(rows);
            }),
            "dispatch, rank 1: bytes a row is 2, expected 4 as on rank 0");
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              rank.prepare();
              if (communicator.rank() == 1) rank.memory = {};
              rank.combine();
            }).find("combine, rank 1: workspace holds 0 bytes, must hold "),
            0u);
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              rank.prepare();
              const float weights[3] = {};
              rank.exchange.start_combine(
                  rank.plan,
                  {std::as_const(rank.expert_rows).matrix(4, 1),
                   MatrixView<const float>(weights, 1, 2), MatrixView<float>(rank.tokens, 2, 1)},
                  rank.memory.bytes());
            }),
            "combine, rank 0: gate_weights has 1 rows, must have 2");
}

TEST(ExpertExchangeRefusals, OfAPlanThatIsNotMade) {
  EXPECT_EQ(refusal_of_both([](Communicator& communicator) {
              SmallRank rank(communicator);
              rank.memory = Buffer<std::byte>(1000);
              rank.dispatch(rank.rows());
            }),
            "dispatch, rank 0: plan has not been made");
}

// Nothing was sent: with the argument set right the same calls go on.
TEST(ExpertExchangeRefusals, LeaveTheGroupUsable) {
  for (const Ability ability : {Ability::kLends, Ability::kScatters, Ability::kNeither}) {
    const auto errors = run_with(ability, 2, [](Communicator& communicator) {
      SmallRank rank(communicator);
      rank.ids[0] = 9;
      EXPECT_THROW(rank.make_plan(), InvalidArgument);
      rank.ids[0] = 0;
      rank.prepare();
      DispatchRows rows = rank.rows();
      rows.expert_rows.rows = 0;
      EXPECT_THROW(rank.dispatch(rows), InvalidArgument);
      rank.dispatch(rank.rows());
      rank.combine();
      EXPECT_EQ(rank.tokens[0], 2.0f);
      EXPECT_EQ(rank.tokens[1], 4.0f);
    });
    EXPECT_EQ(errors, no_errors(2));
  }
}

TEST(ExpertExchangePlan, TellsWhichRankWouldOverflow) {
  const auto errors = run_in_process(2, [](Communicator& communicator) {
    ExpertExchangeConfig config = config_for(2);
    config.max_expert_rows = 5;
    SmallRank rank(communicator, config);
    for (int32_t& id : rank.ids) id = 3;
    rank.make_plan();
    EXPECT_FALSE(rank.plan.status().is_ready);
    EXPECT_EQ(rank.plan.status().rank, 1);
    EXPECT_EQ(rank.plan.status().needed_rows, 8);
    rank.memory = Buffer<std::byte>(1000);
    try {
      rank.dispatch(rank.rows());
    } catch (const InvalidArgument& error) {
      EXPECT_STREQ(error.what(),
                   "dispatch, rank 0: plan is not ready: rank 1 needs 8 expert rows, "
                   "max_expert_rows is 5");
    }
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST(ExpertExchangePlan, CountsDuplicatesOnce) {
  const auto errors = run_in_process(2, [](Communicator& communicator) {
    ExpertExchangeConfig config = config_for(2);
    config.deduplicate = true;
    SmallRank rank(communicator, config);
    const int32_t ids[4] = {0, 1, 2, 0};  // twice to rank 0, then once to each
    rank.exchange.plan({ids, 2, 2}, rank.plan, rank.workspace.bytes());
    EXPECT_EQ(rank.plan.dispatch_counts().send_counts[0], 2);
    EXPECT_EQ(rank.plan.dispatch_counts().send_counts[1], 1);
    EXPECT_EQ(rank.plan.combine_counts().recv_counts[0], 3);
    EXPECT_EQ(rank.plan.slot_counts().row(1 - communicator.rank())[0], 2);
  });
  EXPECT_EQ(errors, no_errors(2));
}

TEST(ExpertExchangeFaults, ARankThatThrowsBetweenPhasesEndsTheOthers) {
  const auto errors = run_in_process(2, [](Communicator& communicator) {
    SmallRank rank(communicator);
    rank.prepare();
    rank.exchange.start_dispatch(rank.plan, rank.rows(), {}, rank.memory.bytes());
    if (communicator.rank() == 1) throw Error("out of luck");
    rank.exchange.finish_dispatch();
    rank.combine();
  });
  EXPECT_EQ(errors[1], "out of luck");
  EXPECT_EQ(errors[0], "rank 0, peer 1, combine: the rank has left the group");
}

TEST(ExpertExchangeFaults, CallsOutOfOrderAreRefused) {
  const auto ends = make_in_process_communicators(1);
  SmallRank rank(*ends[0], config_for(1));
  EXPECT_THROW(rank.exchange.finish_dispatch(), InvalidArgument);
  EXPECT_THROW(rank.exchange.finish_combine(), InvalidArgument);
  rank.prepare();
  rank.exchange.start_dispatch(rank.plan, rank.rows(), {}, rank.memory.bytes());
  EXPECT_THROW(rank.make_plan(), InvalidArgument);
  EXPECT_THROW(rank.combine(), InvalidArgument);
  rank.exchange.finish_dispatch();
  SmallRank other(*ends[0], config_for(1));
  EXPECT_THROW(other.exchange.plan({rank.ids, 2, 2}, rank.plan, other.workspace.bytes()),
               InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
