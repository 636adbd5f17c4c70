// Copies that leave the caches alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard {

/// Copies to memory that another processor reads next. Lines that it has in its cache are not
/// fetched from there first, and it does not fetch them from here.
void stream_copy(std::byte* to, const std::byte* from, int64_t num_bytes);

}  // namespace switchyard
