// Counts and ids as indices of the standard containers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard::stats {

constexpr std::size_t index_of(int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace switchyard::stats
