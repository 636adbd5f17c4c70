// The check of a batch's expert ids that host backends make before they write anything.
#pragma once

#include "cpu/refuse.h"
#include "switchyard/tensor_view.h"

namespace switchyard::cpu {

/// @throws InvalidArgument  naming the first id in (token, slot) order outside [-1, num_experts).
inline void check_expert_ids(MatrixView<const int32_t> expert_ids, int32_t num_experts) {
  for (int64_t token = 0; token < expert_ids.rows; ++token) {
    for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
      const int32_t id = expert_ids.row(token)[slot];
      if (id < -1 || id >= num_experts) {
        refuse("expert_ids of token ", token, ", slot ", slot, " is ", id, ", must be in [-1, ",
               num_experts - 1, "]");
      }
    }
  }
}

}  // namespace switchyard::cpu
