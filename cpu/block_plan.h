// How batches are routed in blocks of rows, decided once for a router.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/group_layout.h"
#include "cpu/routing_task.h"

namespace switchyard::cpu {

enum class BlockMethod : uint8_t {
  kNone,         ///< one row at a time
  kPairs1,       ///< top_k 1
  kPairs2,       ///< top_k 2
  kLanes4,       ///< top_k up to 4
  kLanes8,       ///< top_k up to 8
  kThreshold4,   ///< top_k up to 4
  kThreshold8,   ///< top_k up to 8
  kThreshold12,  ///< top_k up to 12
  kThreshold16,  ///< top_k up to 16
};

struct BlockPlan {
  RouteKernel kernel = nullptr;  ///< for ranges of a block or more; null: one row at a time
  BlockMethod method = BlockMethod::kNone;
  bool on_logits = false;  ///< the scores that decide are logits
  bool in_place = false;   ///< and are read where the caller keeps them
  bool limits_groups = false;
  bool compacts = false;  ///< limits groups by compacting rows
  GroupLayout groups{};
  size_t row_size = 0;     ///< elements of a row of scores or logits
  size_t choice_size = 0;  ///< elements of a row to choose from
};

/// Offsets inside a block are 32-bit: rows further apart are not read in place.
inline constexpr int64_t kMaxInPlaceStride = INT32_MAX / 16;

/// The plans for all calls of a router.
struct BlockPlans {
  BlockPlan in_place[3];  ///< by DataType: without bias and mask, rows at most kMaxInPlaceStride
                          ///< apart; those that cannot be read in place have a plan that copies
  BlockPlan copied;       ///< without bias
  BlockPlan biased;

  [[nodiscard]] const BlockPlan& plan(const ConstTensorView& logits, bool has_bias,
                                      bool has_mask) const {
    if (has_bias) return biased;
    if (has_mask || logits.row_stride > kMaxInPlaceStride) return copied;
    return in_place[static_cast<size_t>(logits.dtype)];
  }
};

/// The plans for the best instruction set of this machine that Highway may use now, the same as
/// best_route_kernel()'s.
BlockPlans best_block_plans(const RouterConfig& config);

}  // namespace switchyard::cpu
