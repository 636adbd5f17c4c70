// Memory of one process that others on its host can map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace switchyard::nccl {

/// POSIX shared memory, mapped. Movable, not copyable; unmaps when it goes.
class SharedSegment {
 public:
  SharedSegment() = default;
  SharedSegment(SharedSegment&& other) noexcept { swap(other); }
  SharedSegment& operator=(SharedSegment&& other) noexcept {
    swap(other);
    return *this;
  }
  ~SharedSegment();

  /// Makes a segment of zeroed memory that is really there: a page that is missing later would end
  /// the process. @return an empty one where there is none.
  static SharedSegment create(const std::string& name, int64_t bytes);
  /// Maps what another process made. @return an empty one where it is not there.
  static SharedSegment open(const std::string& name, int64_t bytes);
  /// Nobody can open it any more; those who have keep it.
  static void remove_name(const std::string& name);

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] int64_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return data_ == nullptr; }

 private:
  SharedSegment(std::byte* data, int64_t size) : data_(data), size_(size) {}
  static SharedSegment map(int file, int64_t bytes);
  void swap(SharedSegment& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }

  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace switchyard::nccl
