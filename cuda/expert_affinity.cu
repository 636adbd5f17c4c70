#include "cuda/expert_affinity.h"

#include <algorithm>

#include "cuda/device_state.h"
#include "cuda/expert_affinity_kernels.cuh"

namespace switchyard::cuda {
namespace {

// Fewer assignments than these are not worth a block, which adds once for each of its experts.
constexpr int64_t kAssignmentsPerBlock = 16 * kRecordThreads;
// More are spread over as many blocks as it takes: indices within a block have 32 bits.
constexpr int64_t kMaxAssignmentsPerBlock = int64_t{1} << 30;
constexpr int64_t kBlocksPerMultiprocessor = 4;

class CudaAffinity final : public ExpertAffinity::Implementation {
 public:
  explicit CudaAffinity(const ExpertAffinityConfig& affinity_config)
      : Implementation(affinity_config, Backend::kCuda) {}

  void record(MatrixView<const int32_t> expert_ids, StreamView stream) override {
    device_.check_usable(stream);
    const int64_t num_assignments = expert_ids.rows * expert_ids.cols;
    if (num_assignments == 0 || config.num_experts == 0) return;
    device_.check_memory("expert_ids", expert_ids.data, alignof(int32_t));
    const int64_t wanted = std::min(ceil_div(num_assignments, kAssignmentsPerBlock),
                                    kBlocksPerMultiprocessor * device_.num_multiprocessors());
    const int64_t blocks = std::max(wanted, ceil_div(num_assignments, kMaxAssignmentsPerBlock));
    const int64_t tokens_per_block = ceil_div(expert_ids.rows, blocks);
    const RecordArgs args{.expert_ids = expert_ids,
                          .tokens_per_block = tokens_per_block,
                          .recorded = counters(recorded.data()),
                          .num_experts = config.num_experts};
    const int64_t grid = ceil_div(expert_ids.rows, tokens_per_block);
    device_.check(SWITCHYARD_LAUNCH(
                      record_affinity_kernel,
                      {.grid = static_cast<unsigned>(grid),
                       .block = kRecordThreads,
                       .shared_bytes = config.num_experts * static_cast<int64_t>(sizeof(uint32_t)),
                       .stream = stream.get()},
                      args),
                  "launch of record_affinity_kernel");
  }

  void update(const int64_t* tokens_per_expert, StreamView stream) override {
    device_.check_usable(stream);
    if (config.num_experts == 0) return;
    device_.check_memory("tokens_per_expert", tokens_per_expert, alignof(int64_t));
    const UpdateArgs args{state(), rule, tokens_per_expert};
    device_.check(SWITCHYARD_LAUNCH(update_affinity_kernel, one_thread_an_expert(stream), args),
                  "launch of update_affinity_kernel");
  }

  void reset(StreamView stream) override {
    device_.check_usable(stream);
    if (config.num_experts == 0) return;
    device_.check(SWITCHYARD_LAUNCH(reset_affinity_kernel, one_thread_an_expert(stream), state()),
                  "launch of reset_affinity_kernel");
  }

 private:
  static unsigned long long* counters(int64_t* values) {
    return reinterpret_cast<unsigned long long*>(values);
  }

  AffinityState state() {
    return {units.data(), activations.data(), counters(recorded.data()), config.num_experts};
  }

  [[nodiscard]] LaunchConfig one_thread_an_expert(StreamView stream) const {
    return {.grid = static_cast<unsigned>(ceil_div(config.num_experts, kUpdateThreads)),
            .block = kUpdateThreads,
            .stream = stream.get()};
  }

  const DeviceState device_;
};

}  // namespace

std::unique_ptr<ExpertAffinity::Implementation> make_cuda_affinity(
    const ExpertAffinityConfig& config) {
  return std::make_unique<CudaAffinity>(config);
}

}  // namespace switchyard::cuda
