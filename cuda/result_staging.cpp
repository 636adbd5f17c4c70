// Copies into pinned memory, and an event behind each slot's copies that says when they are done.
#include "cuda/result_staging.h"

#include <cuda_runtime_api.h>

#include <new>
#include <string>
#include <vector>

#include "cuda/device_state.h"
#include "switchyard/errors.h"

namespace switchyard::cuda {
namespace {

/// Pinned. Kernels and copies go on while the host reads other slots of it.
class PinnedMemory {
 public:
  explicit PinnedMemory(std::size_t bytes) {
    void* memory = nullptr;
    if (cudaMallocHost(&memory, bytes == 0 ? 1 : bytes) != cudaSuccess) throw std::bad_alloc();
    data_ = static_cast<std::byte*>(memory);
  }
  ~PinnedMemory() { static_cast<void>(cudaFreeHost(data_)); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

class Event {
 public:
  explicit Event(const DeviceState& device) {
    device.check(cudaEventCreateWithFlags(&handle_, cudaEventDisableTiming),
                 "cudaEventCreateWithFlags");
  }
  ~Event() {
    if (handle_ != nullptr) static_cast<void>(cudaEventDestroy(handle_));
  }
  Event(Event&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Event& operator=(Event&&) = delete;
  [[nodiscard]] cudaEvent_t get() const { return handle_; }

 private:
  cudaEvent_t handle_ = nullptr;
};

class CudaStaging final : public ResultStaging {
 public:
  CudaStaging(int64_t num_slots, int64_t slot_bytes)
      : slot_bytes_((slot_bytes + 63) / 64 * 64),
        memory_(static_cast<std::size_t>(num_slots * slot_bytes_)) {
    events_.reserve(static_cast<std::size_t>(num_slots));
    for (int64_t slot = 0; slot < num_slots; ++slot) events_.emplace_back(device_);
  }
  /// The copies must not write into memory that is gone.
  ~CudaStaging() override {
    for (const Event& event : events_) static_cast<void>(cudaEventSynchronize(event.get()));
  }
  CudaStaging(const CudaStaging&) = delete;
  CudaStaging& operator=(const CudaStaging&) = delete;

  void copy(int64_t slot, std::span<const Part> parts, StreamView stream) override {
    device_.check_usable(stream);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    device_.check(cudaStreamIsCapturing(stream.get(), &status), "cudaStreamIsCapturing");
    if (status != cudaStreamCaptureStatusNone) {
      throw InvalidArgument(
          "stream is being captured, must not be: results come over behind a graph's launch");
    }
    for (const Part& part : parts) device_.check_memory(part.name, part.data, alignof(int64_t));
    std::byte* to = memory_.data() + slot * slot_bytes_;
    for (const Part& part : parts) {
      if (part.bytes == 0) continue;
      device_.check(cudaMemcpyAsync(to, part.data, static_cast<std::size_t>(part.bytes),
                                    cudaMemcpyDefault, stream.get()),
                    "cudaMemcpyAsync");
      to += part.bytes;
    }
    device_.check(cudaEventRecord(event(slot), stream.get()), "cudaEventRecord");
  }
  [[nodiscard]] bool has_arrived(int64_t slot) const override {
    const cudaError_t status = cudaEventQuery(event(slot));
    if (status == cudaErrorNotReady) {
      static_cast<void>(cudaGetLastError());  // it is no error
      return false;
    }
    device_.check(status, "cudaEventQuery");
    return true;
  }
  void wait_for(int64_t slot) const override {
    device_.check(cudaEventSynchronize(event(slot)), "cudaEventSynchronize");
  }
  [[nodiscard]] const std::byte* data(int64_t slot) const override {
    return memory_.data() + slot * slot_bytes_;
  }

 private:
  [[nodiscard]] cudaEvent_t event(int64_t slot) const {
    return events_[static_cast<std::size_t>(slot)].get();
  }

  const DeviceState device_;
  int64_t slot_bytes_;
  PinnedMemory memory_;
  std::vector<Event> events_;
};

}  // namespace

std::unique_ptr<ResultStaging> make_cuda_staging(int64_t num_slots, int64_t slot_bytes) {
  return std::make_unique<CudaStaging>(num_slots, slot_bytes);
}

}  // namespace switchyard::cuda
