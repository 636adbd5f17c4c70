// A rank's memory and stream, of the host or of its GPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "bench/gpus.h"
#include "switchyard/backend.h"
#include "switchyard/buffer.h"
#include "switchyard/tensor_view.h"

namespace switchyard::bench {

/// Zeroed bytes in a communicator's memory space. Pages of the host are touched by whoever writes
/// first.
class RankMemory {
 public:
  RankMemory() = default;
  RankMemory(int64_t num_bytes, Backend backend) : size_(num_bytes), backend_(backend) {
    if (is_on_gpu()) {
      memory_ = {allocate_on_gpu(num_bytes), &release_on_gpu};
    } else {
      memory_ = {static_cast<std::byte*>(allocate_shared_memory(
                     static_cast<std::size_t>(std::max<int64_t>(1, num_bytes)), Backend::kCpu)),
                 [](std::byte* memory) noexcept { release_shared_memory(memory, Backend::kCpu); }};
    }
  }
  template <typename T>
  RankMemory(const std::vector<T>& values, Backend backend)
      : RankMemory(static_cast<int64_t>(values.size() * sizeof(T)), backend) {
    write(std::as_bytes(std::span(values)));
  }

  [[nodiscard]] std::byte* data() const { return memory_.get(); }
  template <typename T>
  [[nodiscard]] T* as() const {
    return reinterpret_cast<T*>(data());
  }
  [[nodiscard]] int64_t size() const { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const {
    return {data(), static_cast<std::size_t>(size_)};
  }
  [[nodiscard]] MatrixView<std::byte> matrix(int64_t rows, int64_t row_bytes) const {
    return {data(), rows, row_bytes};
  }

  void write(std::span<const std::byte> from) const {
    copy(data(), from.data(), static_cast<int64_t>(from.size()));
  }
  void fill(std::byte value) const {
    if (!is_on_gpu()) {
      std::fill(bytes().begin(), bytes().end(), value);
    } else {
      write(std::vector<std::byte>(static_cast<std::size_t>(size_), value));
    }
  }
  /// Calls `make` with memory of the host for the first `num_bytes`, which it fills.
  template <typename Make>
  void fill_with(int64_t num_bytes, const Make& make) const {
    if (!is_on_gpu()) return make(bytes().first(static_cast<std::size_t>(num_bytes)));
    std::vector<std::byte> made(static_cast<std::size_t>(num_bytes));
    make(std::span(made));
    write(made);
  }
  /// The first `num_bytes` on the host: these, or a copy in `memory`.
  [[nodiscard]] std::span<const std::byte> on_host(int64_t num_bytes,
                                                   std::vector<std::byte>& memory) const {
    if (!is_on_gpu()) return bytes().first(static_cast<std::size_t>(num_bytes));
    memory.resize(static_cast<std::size_t>(num_bytes));
    copy_with_gpu(memory.data(), data(), num_bytes);
    return memory;
  }

 private:
  [[nodiscard]] bool is_on_gpu() const { return backend_ == Backend::kCuda; }
  void copy(std::byte* to, const std::byte* from, int64_t num_bytes) const {
    if (is_on_gpu()) {
      copy_with_gpu(to, from, num_bytes);
    } else {
      std::copy_n(from, num_bytes, to);
    }
  }

  std::unique_ptr<std::byte, void (*)(std::byte*) noexcept> memory_{nullptr,
                                                                    [](std::byte*) noexcept {}};
  int64_t size_ = 0;
  Backend backend_ = Backend::kCpu;
};

/// A GPU's; the host needs none.
class RankStream {
 public:
  explicit RankStream(Backend backend)
      : is_on_gpu_(backend == Backend::kCuda),
        stream_(is_on_gpu_ ? create_gpu_stream() : nullptr) {}
  RankStream(const RankStream&) = delete;
  RankStream& operator=(const RankStream&) = delete;
  ~RankStream() {
    if (is_on_gpu_) destroy_gpu_stream(stream_);
  }
  [[nodiscard]] StreamView view() const { return stream_; }

 private:
  bool is_on_gpu_;
  StreamView stream_;
};

}  // namespace switchyard::bench
