// How the exchange is carried out, by the ways in which transports move rows.
#pragma once

#include <optional>
#include <vector>

#include "nccl/agreement.h"
#include "nccl/all_to_all_plan.h"
#include "nccl/staged_moves.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/slot_assigner.h"

namespace switchyard {

class ExpertExchange::Implementation {
 public:
  Implementation(const ExpertExchangeConfig& exchange_config, Communicator& communicator,
                 CpuThreads threads);

  [[nodiscard]] std::unique_ptr<AllToAllPlan::State> make_state() const;
  [[nodiscard]] int64_t plan_workspace_bytes() const;
  void plan(MatrixView<const int32_t> expert_ids, AllToAllPlan::State& state,
            std::span<std::byte> workspace, StreamView stream);

  enum class Phase { kIdle, kDispatch, kCombine };

  /// @param row_bytes  of a dispatch: of both kinds of rows together.
  [[nodiscard]] int64_t workspace_bytes(Phase phase, const AllToAllPlan::State& state,
                                        int64_t row_bytes) const;
  void start_dispatch(const AllToAllPlan::State& state, const DispatchRows& rows,
                      const DispatchRows& scales, std::span<std::byte> workspace,
                      StreamView stream);
  void finish_dispatch(StreamView stream);
  void start_combine(const AllToAllPlan::State& state, const CombineRows& rows,
                     std::span<std::byte> workspace, StreamView stream);
  void finish_combine(StreamView stream);

  const ExpertExchangeConfig config;

 private:
  /// How rows get from rank to rank.
  enum class Way {
    kLent,        ///< written and read where they lie on the other rank
    kStaged,      ///< shown in memory that ranks share, and taken from there
    kScattered,   ///< taken from where they lie and put where they belong by the transport
    kContiguous,  ///< packed, moved and unpacked
  };

  /// What the workspace of a call is used for.
  struct Scratch {
    std::byte** addresses = nullptr;  ///< kLent: [num_tokens, top_k]
    int64_t* order = nullptr;         ///< kScattered: rows in the order in which they are sent
    std::byte* packed = nullptr;      ///< kContiguous: rows as they are sent
    std::byte* arrived = nullptr;     ///< rows as they are received
    int64_t bytes = 0;
  };

  /// Whether rows are messages of the transport's.
  [[nodiscard]] static bool travels(Way way) { return way != Way::kLent && way != Way::kStaged; }
  /// Whether a token travels once to a rank.
  [[nodiscard]] bool makes_trips(Way way) const { return config.deduplicate && travels(way); }
  /// Whether rows arrive where they do not belong.
  [[nodiscard]] bool unpacks(Way way) const { return makes_trips(way) || way == Way::kContiguous; }
  [[nodiscard]] Backend backend() const { return communicator_.backend(); }
  [[nodiscard]] bool agrees_on_calls() const { return backend() == Backend::kCpu; }

  // Planning.
  void check_plan_call(MatrixView<const int32_t> expert_ids, std::span<std::byte> workspace,
                       StreamView stream) const;
  void sort(MatrixView<const int32_t> expert_ids, AllToAllPlan::State& state,
            std::span<std::byte> workspace, StreamView stream) const;
  void count_trips(AllToAllPlan::State& state) const;
  void list_trips(AllToAllPlan::State& state, StreamView stream);
  void take_counts(AllToAllPlan::State& state);
  void prepare_arrivals(AllToAllPlan::State& state, StreamView stream) const;
  void prepare_departures(AllToAllPlan::State& state, StreamView stream) const;

  // Moving.
  template <typename Check>
  [[nodiscard]] std::string refusal_of(const Check& check) const;
  void check_state(const AllToAllPlan::State& state) const;
  [[nodiscard]] Scratch cut(Way way, Phase phase, const AllToAllPlan::State& state,
                            int64_t row_bytes, std::byte* memory) const;
  [[nodiscard]] bool may_be_lent(MatrixView<const std::byte> rows) const;
  /// The way of this call, once all have told whether their rows may be lent.
  /// @param told  which of the numbers told says so.
  /// @param row_bytes  of the longest kind of rows.
  [[nodiscard]] Way agreed_way(const char* phase, std::size_t told, int64_t row_bytes);
  [[nodiscard]] int64_t rows_memory_bytes(const AllToAllPlan::State& state,
                                          int64_t row_bytes) const;
  /// @param told  which of the numbers told in the call's agreement is a rank's row stride.
  void fill_addresses(const AllToAllPlan::State& state, std::size_t told,
                      std::byte** addresses) const;
  /// What fails here would leave the others waiting.
  template <typename Work>
  void end_group_if_failing(const Work& work) {
    try {
      work();
    } catch (const std::exception& error) {
      communicator_.abort(error.what());
      throw;
    }
  }
  void send_all(const DispatchRows& rows, const DispatchRows& scales, StreamView stream);
  void send_rows(const DispatchRows& rows, std::size_t kind, std::byte* memory, StreamView stream);
  void arrive_rows(const DispatchRows& rows, std::byte* memory, StreamView stream);
  void send_answers(const MatrixView<const std::byte>& answers, StreamView stream);
  void take_answers(StreamView stream);

  Communicator& communicator_;
  const Way plain_way_;  // for any memory
  std::vector<int32_t> slot_ranks_;
  std::optional<SlotAssigner> assigner_;
  Permuter sorter_;      // assignments to slots
  Permuter arrivals_;    // rows received to expert rows
  Permuter departures_;  // expert rows to rows sent back
  Permuter trips_;       // tokens to the rows of their trips
  std::optional<nccl::StagedMoves> staged_;
  nccl::Agreement plan_agreement_;
  nccl::Agreement call_agreement_;
  int64_t num_plans_ = 0;

  // What is under way.
  Phase phase_ = Phase::kIdle;
  Way way_;
  nccl::Staging* staging_ = nullptr;
  const AllToAllPlan::State* state_ = nullptr;
  DispatchRows dispatched_;
  CombineRows combined_;
  std::byte* memory_ = nullptr;
  std::vector<std::byte*> lent_;  // by rank
};

}  // namespace switchyard
