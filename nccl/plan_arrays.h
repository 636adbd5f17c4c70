// Memory of a plan's tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "switchyard/backend_memory.h"

namespace switchyard::nccl {

/// Elements in memory that Allocate gives.
template <typename T, auto Allocate, auto Release>
class PlanArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  PlanArray() = default;
  /// @throws std::bad_alloc, Unavailable
  PlanArray(int64_t size, Backend backend)
      : memory_(static_cast<T*>(Allocate(static_cast<std::size_t>(size) * sizeof(T), backend)),
                Deleter{backend}),
        size_(size) {}

  [[nodiscard]] T* data() const { return memory_.get(); }
  [[nodiscard]] int64_t size() const { return size_; }

 private:
  struct Deleter {
    Backend backend = Backend::kCpu;
    void operator()(T* memory) const { Release(memory, backend); }
  };

  std::unique_ptr<T, Deleter> memory_;
  int64_t size_ = 0;
};

/// Of the backend only.
template <typename T>
using BackendArray = PlanArray<T, allocate_backend_memory, release_backend_memory>;
/// Of the host, to which copies from a device do not stop anybody.
template <typename T>
using PinnedArray = PlanArray<T, allocate_pinned_memory, release_pinned_memory>;

/// The same elements on the host and in the backend's memory, which are one where the backend is a
/// host's. What the one side writes is copied to the other in a stream.
template <typename T>
class MirroredArray {
 public:
  MirroredArray() = default;
  /// @throws std::bad_alloc, Unavailable
  MirroredArray(int64_t size, Backend backend) : backend_(backend), host_(size, backend) {
    if (backend == Backend::kCuda) device_ = BackendArray<T>(size, backend);
  }

  [[nodiscard]] int64_t size() const { return host_.size(); }
  /// The backend's.
  [[nodiscard]] T* data() const { return is_mirrored() ? device_.data() : host_.data(); }
  [[nodiscard]] T* host() const { return host_.data(); }

  /// Of the first `count` elements. The host may use them when it has waited for the stream.
  void download(int64_t count, StreamView stream) const {
    if (is_mirrored()) copy(host_.data(), device_.data(), count, stream);
  }
  /// Of the first `count` elements, which stay as they are until the stream has come so far.
  void upload(int64_t count, StreamView stream) const {
    if (is_mirrored()) copy(device_.data(), host_.data(), count, stream);
  }

 private:
  [[nodiscard]] bool is_mirrored() const { return backend_ == Backend::kCuda; }
  void copy(T* to, const T* from, int64_t count, StreamView stream) const {
    if (count == 0) return;
    copy_memory(backend_, to, from, static_cast<std::size_t>(count) * sizeof(T), stream);
  }

  Backend backend_ = Backend::kCpu;
  PinnedArray<T> host_;
  BackendArray<T> device_;
};

/// Makes `array` hold at least `size` elements; what it held is lost where it grows.
template <typename Array>
void grow(Array& array, int64_t size, Backend backend) {
  if (array.size() < size) array = Array(size, backend);
}

}  // namespace switchyard::nccl
