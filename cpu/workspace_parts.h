// Cuts the workspace that a caller passes in into typed parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace switchyard::cpu {

/// Hands out parts that start on cache lines of their own. Without memory it only measures, so one
/// function can both size a workspace and lay it out.
class WorkspaceParts {
 public:
  static constexpr int64_t kAlignment = 64;

  WorkspaceParts() = default;
  explicit WorkspaceParts(std::span<std::byte> memory) : memory_(memory.data()) {
    const auto address = reinterpret_cast<uintptr_t>(memory_);
    if (memory_ != nullptr) memory_ += (kAlignment - address % kAlignment) % kAlignment;
  }

  template <typename T>
  T* take(int64_t count) {
    T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  }

  /// Enough for the parts taken so far in memory of any alignment.
  [[nodiscard]] int64_t bytes() const { return used_ + kAlignment - 1; }

 private:
  std::byte* memory_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace switchyard::cpu
