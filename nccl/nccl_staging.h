// Through which bytes of the host travel between ranks: a stream of its own, and memory on both
// sides that is allocated once.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <span>

#include "nccl/nccl_handle.h"

namespace switchyard::nccl {

/// @throws CudaError  with the call and CUDA's text.
void check_cuda(cudaError_t status, const char* call);

/// Returns when the stream has done what was enqueued.
/// @throws NcclTrouble  by the handle's deadline, or when NCCL has failed.
/// @throws CudaError
void wait_for(cudaStream_t stream, const NcclHandle& handle);

class NcclStaging {
 public:
  static constexpr std::size_t kMaxBytes = std::size_t{32} << 10;  ///< that a rank gives at a time

  /// On the current device.
  explicit NcclStaging(int size);
  NcclStaging(const NcclStaging&) = delete;
  NcclStaging& operator=(const NcclStaging&) = delete;
  ~NcclStaging();

  /// Gathers up to kMaxBytes of each rank, as many of each.
  /// @return what they gave, in order of rank, until the next call.
  std::span<const std::byte> gather(std::span<const std::byte> mine, const NcclHandle& handle);
  /// Leaves stream and memory to operations that may never end.
  void abandon() { is_abandoned_ = true; }

 private:
  void release() noexcept;

  std::size_t size_;
  cudaStream_t stream_ = nullptr;
  std::byte* host_ = nullptr;    // pinned: what all gave, then what this rank gives
  std::byte* device_ = nullptr;  // the same
  bool is_abandoned_ = false;
};

}  // namespace switchyard::nccl
