// What a dispatch or combine is refused for.
#pragma once

#include <cstdint>
#include <span>

#include "nccl/all_to_all_plan.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/workspace_parts.h"

namespace switchyard::nccl {

using WorkspaceParts = AlignedParts<16>;

// All throw InvalidArgument.

/// @param tokens, expert_rows  what the rows are called in errors.
void check_dispatch_rows(const char* tokens, const char* expert_rows, const DispatchRows& rows,
                         const AllToAllPlan::State& state);
void check_combine_rows(const CombineRows& rows, const AllToAllPlan::State& state, int32_t top_k);
void check_workspace(std::span<std::byte> workspace, int64_t needed);

}  // namespace switchyard::nccl
