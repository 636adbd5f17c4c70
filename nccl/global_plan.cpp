#include "switchyard/global_plan.h"

#include <algorithm>

#include "nccl/refuse.h"

namespace switchyard {

using nccl::refuse;

namespace {

void check(const ExpertPlacement& placement, MatrixView<const int32_t> expert_ids,
           const GlobalPlanOptions& options) {
  if (expert_ids.rows < 0 || expert_ids.cols < 0 || expert_ids.row_stride < expert_ids.cols) {
    refuse("expert_ids is ", expert_ids.rows, " by ", expert_ids.cols, " with row_stride ",
           expert_ids.row_stride, ", must have 0 or more rows and columns within the stride");
  }
  if (!options.source_ranks.empty() && options.source_ranks.size != expert_ids.rows) {
    refuse("source_ranks has ", options.source_ranks.size, " elements, must have ",
           expert_ids.rows);
  }
  if (options.max_tokens_per_expert < 0) {
    refuse("max_tokens_per_expert is ", options.max_tokens_per_expert, ", must be 0 or more");
  }
  for (int64_t token = 0; token < options.source_ranks.size; ++token) {
    const int32_t rank = options.source_ranks[token];
    if (rank < 0 || rank >= placement.num_ranks()) {
      refuse("source_ranks[", token, "] is ", rank, ", must be in [0, ", placement.num_ranks(),
             ")");
    }
  }
  for (int64_t token = 0; token < expert_ids.rows; ++token) {
    for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
      const int32_t id = expert_ids.row(token)[slot];
      if (id < -1 || id >= placement.num_experts()) {
        refuse("expert_ids of token ", token, ", slot ", slot, " is ", id, ", must be in [-1, ",
               placement.num_experts() - 1, "]");
      }
    }
  }
}

/// Counts one token after another, in any order of ranks.
class Counter {
 public:
  Counter(const ExpertPlacement& placement, GlobalPlan& plan)
      : placement_(placement),
        plan_(plan),
        turns_(static_cast<std::size_t>(placement.num_experts())),
        turn_rank_(static_cast<std::size_t>(placement.num_experts()), -1),
        last_token_(static_cast<std::size_t>(placement.num_ranks()), -1) {
    for (int32_t rank = 0; rank < placement.num_ranks(); ++rank) {
      slot_ranks_.insert(slot_ranks_.end(), static_cast<std::size_t>(placement.num_slots_of(rank)),
                         rank);
    }
  }

  void add(int64_t token, int32_t source, const int32_t* ids, int64_t top_k) {
    for (int64_t i = 0; i < top_k; ++i) {
      if (ids[i] < 0) continue;
      const auto expert = static_cast<std::size_t>(ids[i]);
      const auto slot = static_cast<std::size_t>(slot_for(expert, source));
      const int32_t rank = slot_ranks_[slot];
      ++plan_.tokens_per_expert[expert];
      ++plan_.tokens_per_slot[slot];
      ++plan_.send_counts.at(source, rank);
      ++plan_.tokens_per_rank[static_cast<std::size_t>(rank)];
      int64_t& last = last_token_[static_cast<std::size_t>(rank)];
      if (last != token) ++plan_.deduplicated.at(source, rank);
      last = token;
    }
  }

 private:
  /// The copies' turns start anew on every rank, so tokens must come rank by rank.
  int32_t slot_for(std::size_t expert, int32_t source) {
    const std::span<const int32_t> offsets = placement_.replica_offsets();
    const int32_t first = offsets[expert];
    const int32_t copies = offsets[expert + 1] - first;
    int32_t copy = 0;
    if (copies > 1) {
      if (turn_rank_[expert] != source) {
        turn_rank_[expert] = source;
        turns_[expert] = source % copies;
      }
      copy = turns_[expert];
      turns_[expert] = copy + 1 == copies ? 0 : copy + 1;
    }
    return placement_
        .replica_slots()[static_cast<std::size_t>(first) + static_cast<std::size_t>(copy)];
  }

  const ExpertPlacement& placement_;
  GlobalPlan& plan_;
  std::vector<int32_t> slot_ranks_;
  std::vector<int32_t> turns_;      // next copy of each expert
  std::vector<int32_t> turn_rank_;  // whose turns these are
  std::vector<int64_t> last_token_;
};

}  // namespace

std::vector<int64_t> contiguous_offsets(int64_t count, int32_t num_parts) {
  if (count < 0) refuse("count is ", count, ", must be 0 or more");
  if (num_parts < 1) refuse("num_parts is ", num_parts, ", must be 1 or more");
  std::vector<int64_t> offsets{0};
  offsets.reserve(static_cast<std::size_t>(num_parts) + 1);
  for (int32_t part = 0; part < num_parts; ++part) {
    offsets.push_back(offsets.back() + count / num_parts + (part < count % num_parts ? 1 : 0));
  }
  return offsets;
}

GlobalPlan plan_globally(const ExpertPlacement& placement, MatrixView<const int32_t> expert_ids,
                         const GlobalPlanOptions& options) {
  check(placement, expert_ids, options);
  const int32_t num_ranks = placement.num_ranks();
  GlobalPlan plan;
  plan.send_counts = TrafficMatrix(num_ranks);
  plan.deduplicated = TrafficMatrix(num_ranks);
  plan.tokens_per_expert.resize(static_cast<std::size_t>(placement.num_experts()));
  plan.tokens_per_slot.resize(static_cast<std::size_t>(placement.num_slots()));
  plan.tokens_per_rank.resize(static_cast<std::size_t>(num_ranks));
  Counter counter(placement, plan);
  if (options.source_ranks.empty()) {
    const std::vector<int64_t> offsets = contiguous_offsets(expert_ids.rows, num_ranks);
    for (int32_t rank = 0; rank < num_ranks; ++rank) {
      const int64_t end = offsets[static_cast<std::size_t>(rank) + 1];
      for (int64_t token = offsets[static_cast<std::size_t>(rank)]; token < end; ++token) {
        counter.add(token, rank, expert_ids.row(token), expert_ids.cols);
      }
    }
  } else {
    std::vector<int64_t> by_rank(static_cast<std::size_t>(expert_ids.rows));
    for (std::size_t i = 0; i < by_rank.size(); ++i) by_rank[i] = static_cast<int64_t>(i);
    std::stable_sort(by_rank.begin(), by_rank.end(), [&](int64_t a, int64_t b) {
      return options.source_ranks[a] < options.source_ranks[b];
    });
    for (const int64_t token : by_rank) {
      counter.add(token, options.source_ranks[token], expert_ids.row(token), expert_ids.cols);
    }
  }
  if (options.max_tokens_per_expert > 0) {
    for (const int64_t count : plan.tokens_per_expert) {
      plan.overflow_assignments += std::max<int64_t>(0, count - options.max_tokens_per_expert);
    }
  }
  return plan;
}

}  // namespace switchyard
