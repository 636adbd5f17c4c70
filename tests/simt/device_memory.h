// The device's memory: ordinary memory that host code cannot touch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace switchyard::simt {

/// Every allocation has pages of its own in one reserved range of addresses, which is never used
/// twice; the page behind it, and all of it once it is freed, answers no access. New memory holds
/// garbage. Callers serialise.
class DeviceMemory {
 public:
  /// nullptr when `bytes` more than Settings::device_memory_bytes would be in use. 256-byte
  /// aligned.
  void* allocate(size_t bytes);
  /// false when no allocation starts there.
  bool release(void* address);

  /// Whether all of these bytes are in one allocation.
  [[nodiscard]] bool holds(const void* address, size_t bytes) const;
  /// Whether some allocation is, was or will be there.
  [[nodiscard]] bool is_in_range(const void* address) const;
  /// What is at an address of the range: "20 bytes behind the end of a device allocation of 400".
  [[nodiscard]] std::string describe(const void* address) const;

  [[nodiscard]] int64_t num_allocations() const;
  [[nodiscard]] int64_t bytes_in_use() const { return bytes_in_use_; }

  /// Lets host code and kernels touch the memory until as many calls of close().
  void open();
  void close();
  [[nodiscard]] bool is_open() const { return times_open_ > 0; }

  /// What a write behind an allocation's end has left, "" if there was none. Where no page stops
  /// one, in the last 255 bytes before it, this is how it shows.
  [[nodiscard]] std::string find_overrun() const;

 private:
  struct Allocation {
    size_t bytes = 0;
    size_t page_bytes = 0;
    bool freed = false;
  };
  using Allocations = std::map<uintptr_t, Allocation>;

  [[nodiscard]] Allocations::const_iterator find(const void* address) const;
  void reserve_range();
  static void protect(Allocations::const_iterator allocation, bool accessible);

  uintptr_t begin_ = 0;
  uintptr_t end_ = 0;
  uintptr_t next_ = 0;
  int64_t bytes_in_use_ = 0;
  int times_open_ = 0;
  Allocations allocations_;
};

DeviceMemory& device_memory();

/// While it lives, device memory may be touched.
class OpenDeviceMemory {
 public:
  OpenDeviceMemory() { device_memory().open(); }
  OpenDeviceMemory(const OpenDeviceMemory&) = delete;
  OpenDeviceMemory& operator=(const OpenDeviceMemory&) = delete;
  ~OpenDeviceMemory() { device_memory().close(); }
};

}  // namespace switchyard::simt
