#include "bench/gpus.h"
#include "switchyard/errors.h"

namespace switchyard::bench {
namespace {

[[noreturn]] void refuse() {
  throw Unavailable("--transport nccl: this build has no CUDA or no NCCL");
}

}  // namespace

void check_gpus() { refuse(); }
void run_on_gpu(Communicator&, const CommunicatorOptions&,
                const std::function<void(Communicator&)>&) {
  refuse();
}

// Nobody gets this far.
GpuPlace current_gpu() { refuse(); }
std::byte* allocate_on_gpu(int64_t) { refuse(); }
void release_on_gpu(std::byte*) noexcept {}
void copy_with_gpu(std::byte*, const std::byte*, int64_t) { refuse(); }
void copy_on_gpu(std::byte*, const std::byte*, int64_t, StreamView) { refuse(); }
StreamView create_gpu_stream() { refuse(); }
void destroy_gpu_stream(StreamView) noexcept {}

}  // namespace switchyard::bench
