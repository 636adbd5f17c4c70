// Compiled with every program: which peers it has, its build says.
#include "bench/peers/peer.h"

namespace switchyard::bench {

std::vector<std::unique_ptr<PeerBatch>> peers_of([[maybe_unused]] const GpuBatches& batches) {
  std::vector<std::unique_ptr<PeerBatch>> peers;
#ifdef SWITCHYARD_WITH_VLLM
  peers.push_back(make_vllm_batch(batches));
#endif
#ifdef SWITCHYARD_WITH_FLASHINFER
  peers.push_back(make_flashinfer_batch(batches));
#endif
  std::erase(peers, nullptr);
  return peers;
}

}  // namespace switchyard::bench
