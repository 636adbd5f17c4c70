// Dispatch and combine through memory that the ranks of a host share, for rows that lie elsewhere.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "nccl/all_to_all_plan.h"
#include "nccl/copy_route.h"
#include "nccl/staging.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/permutation.h"

namespace switchyard::nccl {

/// A rank shows the others a chunk of its tokens, each once, and they take what is theirs to where
/// it belongs; answers are added up where their rank shows them. So a row is copied twice at most,
/// once into a cache, and a dispatch copies a token once however many experts it is for. Chunks
/// follow each other in turns, whose other half is filled meanwhile.
class StagedMoves {
 public:
  /// @param sorter, placement  outlive this object.
  StagedMoves(const ExpertPlacement& placement, const Permuter& sorter, int rank, int32_t top_k,
              int64_t max_tokens);

  /// Whether rows of so many bytes fit a turn.
  [[nodiscard]] bool fit(const Staging& staging, int64_t row_bytes) const;

  /// Collective, as what follows. Writes the expert rows but for their padding.
  void dispatch(const AllToAllPlan::State& state, const DispatchRows& rows, Staging& staging,
                const char* phase);
  void combine(const AllToAllPlan::State& state, const CombineRows& rows, Staging& staging,
               const char* phase);

 private:
  /// Consecutive tokens of one rank.
  struct Chunk {
    int64_t begin = 0;
    int64_t end = 0;
  };

  [[nodiscard]] int num_ranks() const { return placement_.num_ranks(); }
  [[nodiscard]] int64_t num_slots() const { return placement_.num_slots(); }
  [[nodiscard]] int64_t first_slot(int rank) const {
    return placement_.slot_offsets()[static_cast<std::size_t>(rank)];
  }
  [[nodiscard]] int64_t num_local() const { return first_slot(rank_ + 1) - first_slot(rank_); }
  /// Next of this rank's expert rows for a sender and a local slot.
  [[nodiscard]] int64_t& next_row(int sender, int64_t local) {
    return next_rows_[static_cast<std::size_t>(sender * num_local() + local)];
  }
  [[nodiscard]] bool have_more(const Staging& staging) const;
  [[nodiscard]] int64_t chunk_tokens(const Staging& staging, int64_t row_bytes) const;
  [[nodiscard]] int64_t answers_a_peer(const Staging& staging, int64_t row_bytes) const;
  void begin(const AllToAllPlan::State& state);
  /// Assignments of a slot that lie before token `end` and not before `from`, an index of theirs.
  [[nodiscard]] int64_t advance(const AllToAllPlan::State& state, int64_t slot, int64_t from,
                                int64_t end) const;
  void clear_addresses(int64_t num_tokens);
  [[nodiscard]] MatrixView<std::byte* const> addresses(int64_t num_tokens) const;

  void show_tokens(const AllToAllPlan::State& state, const DispatchRows& rows, Staging& staging);
  void copy_travelling(const MatrixView<const std::byte>& tokens, std::byte* to);
  void take_tokens(int sender, const DispatchRows& rows, const Staging& staging);

  void ask(const AllToAllPlan::State& state, int64_t row_bytes, Staging& staging);
  /// @return whether the answers to these tokens fit.
  [[nodiscard]] bool count_asked(const AllToAllPlan::State& state, Chunk chunk, int64_t limit,
                                 int32_t* counts);
  /// Whether all answers fit one turn, so that nobody need ask for his: every rank has everybody's
  /// counts.
  [[nodiscard]] bool count_all(const AllToAllPlan::State& state, int64_t row_bytes,
                               Staging& staging);
  /// Answers of a rank to another one, then.
  [[nodiscard]] int64_t num_answers(int from, int to) const;
  void show_answers(const ConstTensorView& answers, Staging& staging);
  void add_up(const AllToAllPlan::State& state, const CombineRows& rows, const Chunk& chunk,
              const Staging& staging);
  /// Where in its turn a rank has the answers for another one.
  [[nodiscard]] int64_t answers_offset(const Staging& staging, int from, int to,
                                       int64_t row_bytes) const;

  const ExpertPlacement& placement_;
  const Permuter& sorter_;
  const int rank_;
  const int32_t top_k_;
  const int64_t max_chunk_tokens_;
  Chunk chunk_;                     // last one shown or asked for
  std::vector<int64_t> next_;       // [num_slots] assignment of the next chunk, by slot
  std::vector<int64_t> next_down_;  // the same of the chunk to be added up
  std::vector<int64_t> next_rows_;  // [num_ranks, local slots]
  std::vector<int32_t> counts_;     // [num_ranks, num_slots] of a combine in one turn
  bool is_one_turn_ = false;
  std::vector<uint8_t> travels_;  // whether a token of the chunk is for others
  std::vector<std::byte*> addresses_;
  CopyRoute route_;  // of what is shown
};

}  // namespace switchyard::nccl
