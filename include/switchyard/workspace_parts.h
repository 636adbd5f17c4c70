// Cuts the workspace that a caller passes in into typed parts; for backends.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard {

/// Hands out parts that start at a multiple of kBytes. Without memory it only measures, so one
/// function can both size a workspace and lay it out.
template <int64_t kBytes>
class AlignedParts {
 public:
  static constexpr int64_t kAlignment = kBytes;

  AlignedParts() = default;
  /// `memory` is aligned to kAlignment.
  explicit AlignedParts(std::byte* memory) : memory_(memory) {}

  template <typename T>
  T* take(int64_t count) {
    T* part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return part;
  }

  /// Of the parts taken so far.
  [[nodiscard]] int64_t bytes() const { return used_; }

 private:
  std::byte* memory_ = nullptr;
  int64_t used_ = 0;
};

}  // namespace switchyard
