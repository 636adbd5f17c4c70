// Elements to send, and whether those that came are the right ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace switchyard::bench {

/// Moved, never calculated with: a name and a size are all of it.
struct ElementType {
  std::string name;
  int64_t size = 4;
};

/// @param name  as nccl-tests names it, or "all".
/// @throws InvalidArgument  for another.
std::vector<ElementType> element_types(const std::string& name);

/// Writes elements [first, …) of what `rank` sends in `repetition`: pseudo-random bits.
void fill_elements(std::span<std::byte> out, int64_t element_size, int rank, int64_t repetition,
                   int64_t first);

/// How many elements differ from what fill_elements() writes.
int64_t count_wrong(std::span<const std::byte> elements, int64_t element_size, int rank,
                    int64_t repetition, int64_t first);

}  // namespace switchyard::bench
