// Counts every operator new of the process, for programs that link allocation_counter.cpp.
#pragma once

#include <cstdint>

namespace switchyard::test {

void start_counting_allocations();
/// @return how many there were since the start, on any thread.
int64_t stop_counting_allocations();

/// Allocations that `call` makes, on any thread.
template <typename Call>
int64_t allocations_of(const Call& call) {
  start_counting_allocations();
  call();
  return stop_counting_allocations();
}

}  // namespace switchyard::test
