// Cuts the workspace that a caller passes in into typed parts.
#pragma once

#include <span>

#include "switchyard/workspace_parts.h"

namespace switchyard::cpu {

/// Parts on cache lines of their own, out of memory of any alignment.
class WorkspaceParts : private AlignedParts<64> {
 public:
  using AlignedParts::kAlignment;
  using AlignedParts::take;

  WorkspaceParts() = default;
  explicit WorkspaceParts(std::span<std::byte> memory) : AlignedParts(aligned(memory.data())) {}

  /// Enough for the parts taken so far in memory of any alignment.
  [[nodiscard]] int64_t bytes() const { return AlignedParts::bytes() + kAlignment - 1; }

 private:
  static std::byte* aligned(std::byte* memory) {
    if (memory == nullptr) return nullptr;
    const auto address = reinterpret_cast<uintptr_t>(memory);
    return memory + (kAlignment - address % kAlignment) % kAlignment;
  }
};

}  // namespace switchyard::cpu
