#include <cstdio>

#include "switchyard/buffer.h"
#include "switchyard/router.h"

int main() {
  const switchyard::Router router({.num_experts = 4, .top_k = 2});
  float logits[] = {1.0f, -1.0f, 2.0f, 0.5f};  // one token
  switchyard::Buffer<int32_t> ids(2);
  switchyard::Buffer<float> weights(2);
  switchyard::Buffer<std::byte> workspace(router.workspace_bytes(1));
  router.route({.logits = switchyard::MatrixView(logits, 1, 4)},
               {.expert_ids = ids.matrix(1, 2), .gate_weights = weights.matrix(1, 2)},
               workspace.bytes());
  for (int i = 0; i < 2; ++i) std::printf("expert %d weight %.6f\n", ids[i], weights[i]);
}
