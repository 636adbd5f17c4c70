// Two ranks, here threads, with two experts each: tokens travel to their experts and back.
#include <cstdio>
#include <thread>
#include <vector>

#include "switchyard/buffer.h"
#include "switchyard/expert_exchange.h"
#include "switchyard/in_process_communicator.h"

namespace {

using switchyard::Buffer;
using switchyard::MatrixView;

/// Every expert e answers x * (e + 1).
void ask_experts(const switchyard::AllToAllPlan& plan, int first_expert, Buffer<float>& rows) {
  const auto offsets = plan.expert_offsets();
  for (int64_t local = 0; local + 1 < offsets.size; ++local) {
    for (int64_t row = offsets[local]; row < offsets[local + 1]; ++row) {
      rows[row] *= static_cast<float>(first_expert + local + 1);
    }
  }
}

void run_rank(switchyard::Communicator& communicator) {
  switchyard::ExpertExchange exchange(
      {.placement = switchyard::ExpertPlacement::contiguous(4, communicator.size()),
       .top_k = 2,
       .max_tokens = 2},
      communicator);
  const int32_t expert_ids[2][2] = {{0, 3}, {2, 1}};
  const float gate_weights[2][2] = {{0.5f, 0.5f}, {0.75f, 0.25f}};
  float tokens[2] = {1.0f, 10.0f};  // one number each

  switchyard::AllToAllPlan plan = exchange.make_plan();
  Buffer<std::byte> workspace(exchange.plan_workspace_bytes());
  exchange.plan({&expert_ids[0][0], 2, 2}, plan, workspace.bytes());

  Buffer<float> expert_rows(plan.num_expert_rows());
  Buffer<std::byte> scratch(
      exchange.dispatch_workspace_bytes(plan, sizeof(float)) +
      exchange.combine_workspace_bytes(plan, 1, switchyard::DataType::kFloat32));
  exchange.start_dispatch(
      plan,
      {{reinterpret_cast<const std::byte*>(tokens), 2, sizeof(float)},
       {reinterpret_cast<std::byte*>(expert_rows.data()), expert_rows.size(), sizeof(float)}},
      {}, scratch.bytes());
  exchange.finish_dispatch();
  ask_experts(plan, 2 * communicator.rank(), expert_rows);
  exchange.start_combine(
      plan,
      {MatrixView<const float>(expert_rows.data(), expert_rows.size(), 1),
       MatrixView<const float>(&gate_weights[0][0], 2, 2), MatrixView<float>(tokens, 2, 1)},
      scratch.bytes());
  exchange.finish_combine();
  std::printf("rank %d: %g %g\n", communicator.rank(), tokens[0], tokens[1]);  // 2.5 27.5
}

}  // namespace

int main() {
  std::vector<std::thread> ranks;
  for (auto& end : switchyard::make_in_process_communicators(2)) {
    ranks.emplace_back([communicator = std::move(end)] { run_rank(*communicator); });
  }
  for (std::thread& rank : ranks) rank.join();
}
