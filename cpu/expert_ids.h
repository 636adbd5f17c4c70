// The checks of a batch's ids that host backends make before they write anything.
#pragma once

#include "cpu/refuse.h"
#include "switchyard/router.h"
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

/// @throws InvalidArgument  naming the first token id that is neither -1 nor a row of `table`, or
/// the
///                          first listed expert that is out of range or repeated; rows of the table
///                          that no token uses may hold anything.
inline void check_hash_ids(const RouterConfig& config, VectorView<const int32_t> token_ids,
                           MatrixView<const int32_t> table) {
  for (int64_t token = 0; token < token_ids.size; ++token) {
    const int32_t token_id = token_ids[token];
    if (token_id == -1) continue;
    if (token_id < 0 || token_id >= table.rows) {
      refuse("token_ids[", token, "] is ", token_id, ", must be -1 or below the table's ",
             table.rows, " rows");
    }
    const int32_t* row = table.row(token_id);
    uint64_t seen[kMaxExperts / 64] = {};
    for (int32_t slot = 0; slot < config.top_k; ++slot) {
      const int32_t expert = row[slot];
      if (expert < 0 || expert >= config.num_experts) {
        refuse("table[", token_id, ", ", slot, "] is ", expert, ", must be in [0, ",
               config.num_experts, ")");
      }
      uint64_t& word = seen[expert / 64];
      const uint64_t bit = uint64_t{1} << (expert % 64);
      if ((word & bit) != 0) {
        refuse("table[", token_id, ", ", slot, "] is ", expert, ", must not repeat within the row");
      }
      word |= bit;
    }
  }
}

}  // namespace switchyard::cpu
