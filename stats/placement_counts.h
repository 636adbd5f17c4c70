// How many copies each expert gets, and the packing of so many.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stats/placement_packing.h"
#include "stats/placement_state.h"

namespace switchyard::stats {

/// Copies of each expert, as many as there are slots for: the next one always for the expert whose
/// copies carry most, equal ones the lower id, without load the one of fewer copies. So the
/// heaviest copy is as light as it can be.
/// @param most_copies  that one expert may have; slots beyond them stay empty.
std::vector<int32_t> replica_counts(std::span<const double> loads, int64_t num_slots,
                                    int32_t most_copies);

/// Heaviest first, equal ones by the lower expert.
std::vector<PackedItem> copies_of(std::span<const double> loads, std::span<const int32_t> counts);

struct PackedCopies {
  std::vector<int32_t> slots;  ///< [num_ranks * slots_per_rank], -1 an empty slot
  /// Whether each copy went where it would have gone if a rank could hold an expert twice.
  bool as_wished = false;
};

/// Packs the copies, never two of an expert on a rank, and swaps them until the slowest rank takes
/// at most 1 + `tolerance` times what is possible or no swap helps.
/// @param counts  [num_experts] each in [1, num_ranks], together no more than there are slots.
PackedCopies pack_copies(const LayerProblem& problem, std::span<const int32_t> counts,
                         double tolerance);

/// Looks for better counts: one copy more here, one fewer there, packed anew each time; from the
/// best so far a few at once by chance where no single one helps. The same bits every time.
///
/// @param counts        to start from.
/// @param wanted        stops as soon as the slowest rank takes no longer.
/// @param num_packings  at most.
/// @return the best placement met.
std::vector<int32_t> search_counts(const LayerProblem& problem, std::vector<int32_t> counts,
                                   double wanted, int64_t num_packings);

}  // namespace switchyard::stats
