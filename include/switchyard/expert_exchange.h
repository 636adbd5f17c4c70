// Dispatch and combine: tokens to the ranks that hold their experts, and the answers back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/all_to_all_plan.h"
#include "switchyard/communicator.h"
#include "switchyard/data_type.h"
#include "switchyard/executor.h"
#include "switchyard/expert_placement.h"
#include "switchyard/permutation.h"

namespace switchyard {

/// The same on every rank.
struct ExpertExchangeConfig {
  ExpertPlacement placement;  ///< for as many ranks as the communicator has; at most 4096 slots
  int32_t top_k = 0;          ///< choices a token, 1 to 128
  int64_t max_tokens = 0;     ///< of a batch on one rank
  int32_t block_rows = 1;     ///< each expert's rows start at a multiple of this; 1 to 256
  /// What a slot takes of one rank's batch; by position only.
  ExpertCapacity capacity{};
  /// A token bound for several experts of one rank travels there once. The answers travel for each
  /// choice all the same: they are added up in the order of the choices, on the token's rank.
  bool deduplicate = false;
  /// Expert rows that a rank has memory for; -1: for whatever comes.
  int64_t max_expert_rows = -1;
};

/// Rows of one kind: activations, or the scales of quantised ones.
struct DispatchRows {
  MatrixView<const std::byte> tokens;  ///< [num_tokens, bytes a row]
  MatrixView<std::byte> expert_rows;   ///< [>= num_expert_rows, bytes a row]; padding gets zeros
};

struct CombineRows {
  ConstTensorView expert_rows;   ///< [>= num_expert_rows, hidden_size], laid out as dispatched
  ConstTensorView gate_weights;  ///< [num_tokens, top_k] float32 or bfloat16; empty: 1
  TensorView tokens;             ///< [num_tokens, hidden_size]
};

/// One rank's end of the exchange between tokens and experts. plan() once a batch, then any number
/// of dispatches and combines by that plan. Every rank makes the same calls in the same order, one
/// at a time. Rows that every rank has in memory from Communicator::allocate_shared() are written
/// and read where they lie, in any memory where ranks are threads: then nothing travels. Between
/// processes of one host other rows are shown in shared memory, CommunicatorOptions::staging_bytes
/// at a time; between hosts they are messages. On host transports a refused argument is refused on
/// every rank alike, before any row is sent; NCCL compares configurations and plans, and leaves the
/// arguments of a dispatch or combine to each rank. What fails in a transport ends the
/// communicator; see Communicator.
///
/// Over NCCL a CUDA graph can capture dispatches and combines, each from start to finish, as
/// make_nccl_communicator() says; every launch moves the rows that then lie in the same memory. The
/// plan is made before, in the same stream or until it is done, and everything passed in, the plan
/// among it, stays until the last launch. A new plan needs a new capture.
class ExpertExchange {
 public:
  /// Collective: the ranks compare their configurations.
  /// @param communicator  must outlive this object.
  /// @throws InvalidArgument     on every rank, naming the one at fault, the field and the values.
  /// @throws CommunicationError  when a rank is missing.
  ExpertExchange(const ExpertExchangeConfig& config, Communicator& communicator,
                 CpuThreads threads = {});
  ~ExpertExchange();
  ExpertExchange(const ExpertExchange&) = delete;
  ExpertExchange& operator=(const ExpertExchange&) = delete;

  [[nodiscard]] const ExpertExchangeConfig& config() const;

  /// An empty plan with memory for max_tokens.
  [[nodiscard]] AllToAllPlan make_plan() const;
  /// Bytes of workspace, in the communicator's memory space, that plan() needs.
  [[nodiscard]] int64_t plan_workspace_bytes() const;

  /// Collective. Sorts this rank's assignments, exchanges the counts and lays out the rows.
  ///
  /// @param expert_ids  [num_tokens, top_k] in the communicator's memory space; -1 marks a padding
  ///                    token or an empty slot.
  /// @throws InvalidArgument  on every rank, for an id out of range, too many tokens or too small a
  ///                          workspace on one of them. The plan is not ready then.
  /// @throws CommunicationError  naming rank, peer and phase.
  /// A rank's memory for expert rows that would overflow is told by plan.status(). Waits for the
  /// other ranks and, on devices, for the stream; so one that is being captured is refused. What
  /// the host works out goes to a device by copies in the stream: plan what follows in the same
  /// one, or when it is done.
  void plan(MatrixView<const int32_t> expert_ids, AllToAllPlan& plan,
            std::span<std::byte> workspace, StreamView stream = {});

  /// Bytes of workspace, aligned to 16, that a dispatch needs for rows of so many bytes (the sum
  /// over both kinds) by this plan.
  [[nodiscard]] int64_t dispatch_workspace_bytes(const AllToAllPlan& plan, int64_t row_bytes) const;
  /// Sends every assignment's row to its expert. Everything passed in stays as it is until
  /// finish_dispatch() has returned. Ranks that are threads are done when this returns; rows that
  /// are messages are on their way; rows through staging memory move in finish_dispatch().
  ///
  /// @param scales  rows that go with `rows`; empty views for none.
  /// @throws InvalidArgument  for a plan that is not ready or not of this exchange, or when sizes
  ///                          disagree.
  void start_dispatch(const AllToAllPlan& plan, const DispatchRows& rows,
                      const DispatchRows& scales, std::span<std::byte> workspace,
                      StreamView stream = {});
  /// Returns when the expert rows are here; on devices, the stream goes on when they are.
  void finish_dispatch(StreamView stream = {});

  /// Bytes of workspace, aligned to 16, that a combine needs for such rows.
  [[nodiscard]] int64_t combine_workspace_bytes(const AllToAllPlan& plan, int64_t hidden_size,
                                                DataType dtype) const;
  /// Sends the experts' answers back and adds them up: tokens[t] = sum over slots j of weight[t, j]
  /// * answer(t, j), as Permuter::unpermute() does it on one rank: the same bits for any number of
  /// ranks. Everything passed in stays as it is until finish_combine() has returned.
  void start_combine(const AllToAllPlan& plan, const CombineRows& rows,
                     std::span<std::byte> workspace, StreamView stream = {});
  void finish_combine(StreamView stream = {});

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard
