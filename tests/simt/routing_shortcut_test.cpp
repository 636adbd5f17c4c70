// Large batches of renormalised softmax take kernels of their own, which give the same bits.
#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "cuda/row_shortcut.h"
#include "tests/backend_variants.h"
#include "tests/routing_case.h"
#include "tests/simt/executor.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

// From here on the executor's four multiprocessors have enough rows.
constexpr int64_t kLargeBatch = 64;

struct Shape {
  int32_t num_experts;
  int32_t top_k;
  const char* kernel;
};

void PrintTo(const Shape& shape, std::ostream* out) {
  *out << shape.num_experts << "_" << shape.top_k;
}

constexpr Shape kShapes[] = {{1, 1, "route_kernel"},          {4, 4, "route_threads_kernel"},
                             {8, 2, "route_threads_kernel"},  {16, 3, "route_threads_kernel"},
                             {16, 5, "route_lanes_kernel"},   {20, 8, "route_lanes_kernel"},
                             {60, 4, "route_lanes_kernel"},   {62, 4, "route_kernel"},
                             {64, 8, "route_lanes_kernel"},   {128, 8, "route_lanes_kernel"},
                             {160, 6, "route_lanes_kernel"},  {256, 1, "route_lanes_kernel"},
                             {384, 8, "route_lanes_kernel"},  {512, 8, "route_lanes_kernel"},
                             {16, 16, "route_lanes_kernel"},  {60, 9, "route_lanes_kernel"},
                             {128, 16, "route_lanes_kernel"}, {512, 10, "route_lanes_kernel"},
                             {512, 17, "route_kernel"},       {896, 4, "route_kernel"}};

void expect_same_bits(const RoutingCase& routing_case) {
  const Router reference(routing_case.config, Backend::kReference);
  const Router router(routing_case.config, backend_variants().front().backend);
  EXPECT_EQ(difference(route(reference, routing_case), route(router, routing_case)), "")
      << describe(routing_case);
}

bool ran(const std::string& kernel) {
  return simt::running_kernel().find("::" + kernel + "<") != std::string::npos;
}

class RoutingShortcuts : public ::testing::TestWithParam<Shape> {};

TEST_P(RoutingShortcuts, GiveTheSameBits) {
  const Shape& shape = GetParam();
  for (const DataType dtype : {DataType::kFloat32, DataType::kBFloat16}) {
    for (const Distribution distribution : kAllDistributions) {
      for (const int64_t extra_tokens : {0, 39}) {
        expect_same_bits(
            {.config = {.num_experts = shape.num_experts,
                        .top_k = shape.top_k,
                        .routed_scaling_factor = extra_tokens == 0 ? 1.0f : 2.5f},
             .num_tokens = kLargeBatch + extra_tokens,
             .distribution = distribution,
             .dtype = dtype,
             .weight_dtype = extra_tokens == 0 ? DataType::kFloat32 : DataType::kBFloat16,
             .logits_padding = extra_tokens == 0 ? 0 : 16,
             .output_padding = extra_tokens == 0 ? 0 : 3,
             .with_losses = false,
             .with_counts = extra_tokens != 0});
      }
    }
  }
  EXPECT_TRUE(ran(shape.kernel)) << simt::running_kernel();
}

INSTANTIATE_TEST_SUITE_P(Shapes, RoutingShortcuts, ::testing::ValuesIn(kShapes),
                         ::testing::PrintToStringParamName());

/// What the short kernels do not know goes the general way.
TEST(RoutingShortcut, IsTakenOnlyWhereNothingElseIsAsked) {
  const RoutingCase plain{
      .config = {.num_experts = 64, .top_k = 6}, .num_tokens = kLargeBatch, .with_losses = false};
  expect_same_bits(plain);
  EXPECT_TRUE(ran("route_lanes_kernel"));
  const auto goes_the_general_way = [](const RoutingCase& routing_case) {
    expect_same_bits(routing_case);
    EXPECT_TRUE(ran("route_kernel")) << describe(routing_case);
  };
  RoutingCase other = plain;
  other.num_tokens = kLargeBatch - 1;
  goes_the_general_way(other);
  for (const DataType dtype : {DataType::kFloat16, DataType::kFloat32, DataType::kBFloat16}) {
    other = plain;
    other.dtype = dtype;
    other.logits_padding = dtype == DataType::kFloat16 ? 0 : 2;
    goes_the_general_way(other);
  }
  other = plain;
  other.config.renormalize = false;
  goes_the_general_way(other);
  other = plain;
  other.config.score_function = ScoreFunction::kSigmoid;
  goes_the_general_way(other);
  other = plain;
  other.config.num_shared_experts = 1;
  goes_the_general_way(other);
  other = plain;
  other.config.num_groups = 4;
  other.config.top_groups = 2;
  goes_the_general_way(other);
  other = plain;
  other.with_bias = true;
  goes_the_general_way(other);
  other = plain;
  other.with_token_mask = true;
  goes_the_general_way(other);
  other = plain;
  other.with_expert_mask = true;
  goes_the_general_way(other);
  other = plain;
  other.with_losses = true;
  goes_the_general_way(other);
}

TEST(RoutingShortcut, IsTakenOnlyWhereRowsHaveShortStrides) {
  constexpr int64_t kMost = (int64_t{1} << 29) - 4;
  const auto is_taken = [](int64_t logits_stride, int64_t ids_stride, int64_t weights_stride,
                           int64_t num_tokens) {
    cuda::RouteTask task;
    task.config = {.num_experts = 64, .top_k = 8};
    task.logits = {nullptr, DataType::kFloat32, num_tokens, 64, logits_stride};
    task.expert_ids = {nullptr, num_tokens, 8, ids_stride};
    task.gate_weights = {nullptr, DataType::kFloat32, num_tokens, 8, weights_stride};
    task.on_logits = true;
    return cuda::find_shortcut(task) != nullptr;
  };
  EXPECT_TRUE(is_taken(kMost, kMost, kMost, INT32_MAX));
  EXPECT_FALSE(is_taken(kMost + 4, 8, 8, 1));
  EXPECT_FALSE(is_taken(64, kMost + 4, 8, 1));
  EXPECT_FALSE(is_taken(64, 8, kMost + 4, 1));
  EXPECT_FALSE(is_taken(64, 8, 8, int64_t{1} << 31));
}

}  // namespace
}  // namespace switchyard::test
