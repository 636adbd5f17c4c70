// Kernels of other projects on gpu_bench's batches, compiled from their source where a build knows
// where that lies (README.md beside this file).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/gpu_batches.h"

namespace switchyard::bench {

struct PeerCall {
  TimedCall call;
  std::string beside;  ///< the operation of GpuBatches::calls() that does as much
};

/// One peer's outputs for every set of a batch, which outlives them.
class PeerBatch {
 public:
  PeerBatch() = default;
  PeerBatch(const PeerBatch&) = delete;
  PeerBatch& operator=(const PeerBatch&) = delete;
  virtual ~PeerBatch() = default;

  /// They refer to this object.
  [[nodiscard]] virtual std::vector<PeerCall> calls() const = 0;
  /// The first set's, [num_tokens, top_k] each, in the order in which the peer leaves them.
  [[nodiscard]] virtual std::vector<int32_t> expert_ids() const = 0;
  [[nodiscard]] virtual std::vector<float> gate_weights() const = 0;
};

/// Those that this build knows and that have kernels for the batch.
std::vector<std::unique_ptr<PeerBatch>> peers_of(const GpuBatches& batches);

/// Null where the peer has no kernel for such a batch.
std::unique_ptr<PeerBatch> make_vllm_batch(const GpuBatches& batches);
std::unique_ptr<PeerBatch> make_flashinfer_batch(const GpuBatches& batches);

/// Makes each call once on the first set.
/// @throws std::runtime_error  when more than one row in a hundred has other experts than the
///                             library chose, or a weight is not within 2 % of its.
void check_peer(const PeerBatch& peer, const GpuBatches& batches);

}  // namespace switchyard::bench
