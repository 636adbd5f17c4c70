// What operations on a GPU are held against: an empty kernel, and a copy of as many bytes.
#pragma once

#include <cstdint>

#include "switchyard/stream.h"

namespace switchyard::bench {

/// Both throw std::runtime_error when the launch fails.
void enqueue_empty(StreamView stream);
/// Reads and writes `bytes`, a multiple of 16, between 16-byte aligned device memory.
void enqueue_copy(const void* from, void* to, int64_t bytes, StreamView stream);

}  // namespace switchyard::bench
