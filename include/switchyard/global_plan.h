// A whole batch's exchange seen from above, without running it: for planning and simulation.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/data_type.h"
#include "switchyard/expert_placement.h"
#include "switchyard/tensor_view.h"
#include "switchyard/traffic.h"

namespace switchyard {

/// First item of each part of `count` items in contiguous parts, the first count mod num_parts of
/// them one longer: [num_parts + 1]. So tokens belong to ranks where nobody says otherwise.
/// @throws InvalidArgument  for a negative count or fewer than 1 part.
std::vector<int64_t> contiguous_offsets(int64_t count, int32_t num_parts);

struct GlobalPlanOptions {
  /// [num_tokens] rank on which each token starts; empty: contiguous_offsets().
  VectorView<const int32_t> source_ranks{};
  /// Assignments that one expert takes from all ranks together; 0: any number.
  int64_t max_tokens_per_expert = 0;
};

/// Who sends how many rows to whom.
struct GlobalPlan {
  TrafficMatrix send_counts;   ///< a row for each assignment
  TrafficMatrix deduplicated;  ///< a row for each rank that a token goes to, however many experts
  std::vector<int64_t> tokens_per_expert;  ///< [num_experts] assignments wanted
  std::vector<int64_t> tokens_per_slot;    ///< [num_slots] the same by copy
  std::vector<int64_t> tokens_per_rank;    ///< [num_ranks] rows that end there
  int64_t overflow_assignments = 0;  ///< beyond max_tokens_per_expert; counted above all the same
};

/// Counts what every rank would send. Copies of an expert take turns as in SlotAssigner.
///
/// @param expert_ids  [num_tokens, top_k]; -1 marks a padding token or an empty slot.
/// @throws InvalidArgument  for an id or a source rank out of range, naming where it is, or sizes
///                          that disagree.
GlobalPlan plan_globally(const ExpertPlacement& placement, MatrixView<const int32_t> expert_ids,
                         const GlobalPlanOptions& options = {});

}  // namespace switchyard
