// How the groups of a row lie in memory.
#pragma once

#include <cstddef>

namespace switchyard::cpu {

struct GroupLayout {
  size_t num_groups;
  size_t top_groups;
  size_t group_size;
  size_t padded_size;  ///< of one group in a compacted row
  size_t terms;        ///< members summed, 1 or 2
};

}  // namespace switchyard::cpu
