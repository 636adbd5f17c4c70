#include "bench/gpus.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "switchyard/errors.h"
#include "switchyard/nccl_communicator.h"

namespace switchyard::bench {
namespace {

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(call) + ": " + cudaGetErrorString(status));
}

int count_gpus() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

/// What decides whether ranks get GPUs, and which ones.
struct Offer {
  char host[64] = "";
  int64_t num_gpus = 0;
  int64_t nccl_version = 0;
  bool may_share = false;
};

Offer own_offer() {
  Offer offer;
  ::gethostname(offer.host, sizeof(offer.host) - 1);
  offer.num_gpus = count_gpus();
  int version = 0;
  if (ncclGetVersion(&version) == ncclSuccess) offer.nccl_version = version;
  const char* const enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  offer.may_share = enabled != nullptr && std::string_view(enabled) == "1";
  return offer;
}

/// @throws InvalidArgument  when `offer` is of a host where that many ranks do not get GPUs.
void check_sharing(const Offer& offer, int64_t num_ranks) {
  if (num_ranks <= offer.num_gpus) return;
  const std::string what = "--transport nccl: " + std::to_string(num_ranks) + " ranks on " +
                           offer.host + ", which has " + std::to_string(offer.num_gpus) +
                           " GPU(s); to share them ";
  if (offer.nccl_version < NCCL_VERSION(2, 30, 0)) {
    throw InvalidArgument(what + "NCCL must be 2.30 or later, is of version code " +
                          std::to_string(offer.nccl_version));
  }
  if (!offer.may_share) throw InvalidArgument(what + "NCCL_MULTI_RANK_GPU_ENABLE must be 1");
}

/// The same verdict on every rank.
/// @return this rank's GPU.
int choose_gpu(Communicator& bootstrap) {
  const Offer mine = own_offer();
  std::vector<Offer> all(static_cast<std::size_t>(bootstrap.size()));
  bootstrap.all_gather("GPUs", std::as_bytes(std::span(&mine, 1)),
                       std::as_writable_bytes(std::span(all)));
  const auto is_on = [](const Offer& host) {
    return [&host](const Offer& offer) { return std::strcmp(offer.host, host.host) == 0; };
  };
  for (const Offer& offer : all) {
    if (offer.num_gpus == 0) throw Unavailable(std::string("no CUDA device on ") + offer.host);
    check_sharing(offer, std::count_if(all.begin(), all.end(), is_on(offer)));
  }
  const auto before = std::count_if(all.begin(), all.begin() + bootstrap.rank(), is_on(mine));
  return static_cast<int>(before % mine.num_gpus);
}

}  // namespace

void check_gpus() {
  if (count_gpus() == 0) throw Unavailable("no CUDA device");
}

void run_on_gpu(Communicator& bootstrap, const CommunicatorOptions& options,
                const std::function<void(Communicator&)>& body) {
  check(cudaSetDevice(choose_gpu(bootstrap)), "cudaSetDevice");
  const std::unique_ptr<Communicator> communicator = make_nccl_communicator(bootstrap, options);
  body(*communicator);
}

GpuPlace current_gpu() {
  GpuPlace place;
  check(cudaGetDevice(&place.index), "cudaGetDevice");
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, place.index), "cudaGetDeviceProperties");
  place.name = properties.name;
  return place;
}

std::byte* allocate_on_gpu(int64_t num_bytes) {
  void* memory = nullptr;
  const auto size = static_cast<std::size_t>(std::max<int64_t>(1, num_bytes));
  check(cudaMalloc(&memory, size), "cudaMalloc");
  check(cudaMemset(memory, 0, size), "cudaMemset");
  // Not for the device, on which another rank may wait for this one.
  check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");
  return static_cast<std::byte*>(memory);
}

void release_on_gpu(std::byte* memory) noexcept { cudaFree(memory); }

void copy_with_gpu(std::byte* to, const std::byte* from, int64_t num_bytes) {
  if (num_bytes == 0) return;
  check(cudaMemcpy(to, from, static_cast<std::size_t>(num_bytes), cudaMemcpyDefault), "cudaMemcpy");
}

void copy_on_gpu(std::byte* to, const std::byte* from, int64_t num_bytes, StreamView stream) {
  if (num_bytes == 0) return;
  check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(num_bytes), cudaMemcpyDeviceToDevice,
                        stream.get()),
        "cudaMemcpyAsync");
}

StreamView create_gpu_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

void destroy_gpu_stream(StreamView stream) noexcept { cudaStreamDestroy(stream.get()); }

}  // namespace switchyard::bench
