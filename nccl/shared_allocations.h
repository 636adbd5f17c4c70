// Memory that the processes of a group map from each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "nccl/shared_segment.h"

namespace switchyard::nccl {

/// A place in what a rank has allocated, which is the same for all.
struct SharedPlace {
  int64_t allocation = -1;  ///< -1: nowhere
  int64_t offset = 0;
};

class SharedAllocations {
 public:
  /// Gathers so many bytes of every rank.
  using Gather = std::function<void(std::span<const std::byte> mine, std::span<std::byte> all)>;

  /// Collective: every rank maps what the others made, or nobody has anything.
  /// @param bytes  1 or more.
  /// @return this rank's memory; empty on all where one of them cannot take part.
  std::span<std::byte> allocate(int rank, int size, int64_t bytes, const Gather& gather);

  /// Where this rank's `memory` lies.
  [[nodiscard]] SharedPlace find(std::span<const std::byte> memory) const;
  /// Where `rank` has `place`, mapped here.
  [[nodiscard]] std::byte* address(int rank, const SharedPlace& place) const;

 private:
  struct Allocation {
    int rank = 0;                         ///< this one
    std::vector<SharedSegment> segments;  ///< by rank
  };
  std::vector<Allocation> allocations_;
};

}  // namespace switchyard::nccl
