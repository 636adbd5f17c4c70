// Owning memory for the arrays that views point into.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

#include "switchyard/backend.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// `size` elements, aligned to 64 bytes and zeroed, of ordinary memory or of memory that the host
/// shares with a backend. Movable, not copyable.
template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

 public:
  static constexpr std::size_t kAlignment = 64;

  Buffer() = default;
  /// @throws std::bad_alloc  when the memory is not there or `size` is negative.
  explicit Buffer(int64_t size) : data_(allocate(size)), size_(size) {}
  /// Memory that the host and `backend` can both use; see allocate_shared_memory().
  /// @throws std::bad_alloc, Unavailable
  Buffer(int64_t size, Backend backend) : data_(allocate(size, backend)), size_(size) {}

  [[nodiscard]] T* data() { return data_.get(); }
  [[nodiscard]] const T* data() const { return data_.get(); }
  [[nodiscard]] int64_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }
  [[nodiscard]] T* begin() { return data(); }
  [[nodiscard]] T* end() { return data() + size_; }
  [[nodiscard]] const T* begin() const { return data(); }
  [[nodiscard]] const T* end() const { return data() + size_; }

  [[nodiscard]] VectorView<T> view() { return {data(), size_}; }
  [[nodiscard]] VectorView<const T> view() const { return {data(), size_}; }
  /// The first rows * cols elements as a dense matrix.
  [[nodiscard]] MatrixView<T> matrix(int64_t rows, int64_t cols) { return {data(), rows, cols}; }
  [[nodiscard]] MatrixView<const T> matrix(int64_t rows, int64_t cols) const {
    return {data(), rows, cols};
  }
  [[nodiscard]] std::span<std::byte> bytes() {
    return std::as_writable_bytes(std::span<T>(data(), static_cast<std::size_t>(size_)));
  }

 private:
  struct Release {
    bool shared = false;
    Backend backend = Backend::kCpu;

    void operator()(T* pointer) const {
      if (shared) return release_shared_memory(pointer, backend);
      ::operator delete[](pointer, std::align_val_t{kAlignment});
    }
  };

  static std::unique_ptr<T[], Release> allocate(int64_t size, Backend backend) {
    if (size < 0) throw std::bad_array_new_length();
    void* const memory =
        allocate_shared_memory(static_cast<std::size_t>(size) * sizeof(T), backend);
    return std::unique_ptr<T[], Release>(static_cast<T*>(memory), Release{true, backend});
  }

  static std::unique_ptr<T[], Release> allocate(int64_t size) {
    if (size < 0) throw std::bad_array_new_length();
    // Value-initialised, so that no run ever depends on what the memory held before.
    return std::unique_ptr<T[], Release>(new (std::align_val_t{kAlignment})
                                             T[static_cast<std::size_t>(size)]());
  }

  std::unique_ptr<T[], Release> data_;
  int64_t size_ = 0;
};

}  // namespace switchyard
