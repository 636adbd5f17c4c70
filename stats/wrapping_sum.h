// Sums that are defined however large they get.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace switchyard::stats {

inline void add_wrapping(int64_t& sum, int64_t term) {
  sum = static_cast<int64_t>(static_cast<uint64_t>(sum) + static_cast<uint64_t>(term));
}

/// Of as many terms as sums, or more.
inline void add_wrapping(std::vector<int64_t>& sums, const int64_t* terms) {
  for (std::size_t i = 0; i < sums.size(); ++i) add_wrapping(sums[i], terms[i]);
}

}  // namespace switchyard::stats
