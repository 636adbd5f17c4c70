// Routes two tokens to the best two of four experts.
#include <cstdio>

#include "switchyard/buffer.h"
#include "switchyard/router.h"

int main() {
  const switchyard::Router router({.num_experts = 4, .top_k = 2}, switchyard::Backend::kCpu);
  const float logits[2][4] = {{1.0f, 4.0f, 2.0f, 3.0f}, {0.5f, 0.5f, -1.0f, 0.0f}};
  switchyard::Buffer<int32_t> ids(2 * 2);
  switchyard::Buffer<float> weights(2 * 2);
  switchyard::Buffer<std::byte> workspace(router.workspace_bytes(2));
  router.route({.logits = switchyard::MatrixView<const float>(&logits[0][0], 2, 4)},
               {.expert_ids = ids.matrix(2, 2), .gate_weights = weights.matrix(2, 2)},
               workspace.bytes());
  for (int64_t i = 0; i < ids.size(); ++i) std::printf("expert %d: %.4f\n", ids[i], weights[i]);
}
