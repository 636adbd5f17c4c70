#include "nccl/nccl_staging.h"

#include <cstring>

#include "nccl/refuse.h"

namespace switchyard::nccl {

void check_cuda(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw CudaError(
      text_of(call, ": ", cudaGetErrorName(status), " (", cudaGetErrorString(status), ")"));
}

void wait_for(cudaStream_t stream, const NcclHandle& handle) {
  cudaError_t status = cudaErrorNotReady;
  const bool is_done = poll(Clock::now() + handle.timeout(), [&] {
    status = cudaStreamQuery(stream);
    if (status == cudaErrorNotReady) handle.check_later_errors();
    return status != cudaErrorNotReady;
  });
  if (!is_done) {
    throw NcclTrouble(text_of("the other ranks did not come within ", handle.timeout().count(),
                              " ms (the stream is not done)"));
  }
  check_cuda(status, "cudaStreamQuery");
  handle.check_later_errors();
}

NcclStaging::NcclStaging(int size) : size_(static_cast<std::size_t>(size)) {
  const std::size_t bytes = (size_ + 1) * kMaxBytes;
  try {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
               "cudaStreamCreateWithFlags");
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, bytes), "cudaMallocHost");
    host_ = static_cast<std::byte*>(memory);
    check_cuda(cudaMalloc(&memory, bytes), "cudaMalloc");
    device_ = static_cast<std::byte*>(memory);
  } catch (const CudaError&) {
    release();
    throw;
  }
}

NcclStaging::~NcclStaging() {
  if (!is_abandoned_) release();
}

void NcclStaging::release() noexcept {
  static_cast<void>(cudaFree(device_));
  static_cast<void>(cudaFreeHost(host_));
  if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
}

std::span<const std::byte> NcclStaging::gather(std::span<const std::byte> mine,
                                               const NcclHandle& handle) {
  const std::size_t mine_at = size_ * kMaxBytes;
  std::memcpy(host_ + mine_at, mine.data(), mine.size());
  check_cuda(cudaMemcpyAsync(device_ + mine_at, host_ + mine_at, mine.size(),
                             cudaMemcpyHostToDevice, stream_),
             "cudaMemcpyAsync");
  handle.check(
      ncclAllGather(device_ + mine_at, device_, mine.size(), ncclUint8, handle.get(), stream_),
      "ncclAllGather");
  const std::size_t all_bytes = size_ * mine.size();
  check_cuda(cudaMemcpyAsync(host_, device_, all_bytes, cudaMemcpyDeviceToHost, stream_),
             "cudaMemcpyAsync");
  wait_for(stream_, handle);
  return {host_, all_bytes};
}

}  // namespace switchyard::nccl
