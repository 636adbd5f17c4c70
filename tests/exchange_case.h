// One batch over several ranks, from tokens to experts and back, and what must come out.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/communicator.h"
#include "switchyard/expert_exchange.h"

namespace switchyard::test {

struct ExchangeCase {
  ExpertPlacement placement;
  int32_t top_k = 2;
  std::vector<int64_t> num_tokens{};  ///< [num_ranks]
  int64_t hidden_size = 8;
  DataType dtype = DataType::kFloat32;
  int64_t scale_bytes = 0;  ///< a row; 0: no scales
  int32_t block_rows = 1;
  bool deduplicate = false;
  ExpertCapacity capacity{};
  int64_t stride_padding = 0;    ///< elements between rows
  int32_t only_expert = -1;      ///< where all first choices go; -1: anywhere
  int32_t padding_percent = 10;  ///< ids that are -1
  bool shares_rows = false;      ///< expert rows in memory that all ranks can use
  uint64_t seed = 1;
};

/// Plans, dispatches with scales, lets every expert answer x * (1 + e) + e, combines, and expects
/// the expert rows as the plan lays them out, and the bits that one rank gets for all the tokens.
/// Twice by one plan and once by the next, to see that nothing of the last time is left.
void check_exchange(Communicator& communicator, const ExchangeCase& exchange_case);

/// Cases for so many ranks: placements with and without copies, fewer experts than ranks, all
/// tokens to one rank, ranks and batches without tokens, alignment, scales, strides, duplicates.
std::vector<ExchangeCase> exchange_cases(int num_ranks);

}  // namespace switchyard::test
