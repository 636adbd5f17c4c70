// What the front door of routing refuses, in which words, and that nothing is written then.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "switchyard/errors.h"
#include "switchyard/router_losses.h"
#include "tests/backend_variants.h"
#include "tests/guarded.h"
#include "tests/routing_conformance.h"

namespace switchyard::test {
namespace {

constexpr RouterConfig kGood{.num_experts = 8, .top_k = 2};

/// The message of the refusal; empty where there was none.
template <typename Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

void expect_parts(const std::string& message, const std::vector<std::string>& parts) {
  ASSERT_NE(message, "") << "was not refused; expected mention of " << parts[0];
  for (const std::string& part : parts) {
    EXPECT_NE(message.find(part), std::string::npos) << '"' << message << "\" lacks " << part;
  }
}

struct ConfigRefusal {
  std::function<void(RouterConfig&)> spoil;
  std::vector<std::string> parts;  ///< argument, value, limit
};

TEST(RoutingRefusals, Contract10_ErrorsNameArgumentValueAndLimitOfTheConfig) {
  const ConfigRefusal refusals[] = {
      {[](auto& c) { c.num_experts = 0; }, {"num_experts", "0", "[1, 2048]"}},
      {[](auto& c) { c.num_experts = -3; }, {"num_experts", "-3", "[1, 2048]"}},
      {[](auto& c) { c.num_experts = 2049; }, {"num_experts", "2049", "[1, 2048]"}},
      {[](auto& c) { c.top_k = 0; }, {"top_k", "0", "[1, 64]"}},
      {[](auto& c) { c.num_experts = 100, c.top_k = 65; }, {"top_k", "65", "[1, 64]"}},
      {[](auto& c) { c.top_k = 9; }, {"top_k", "9", "num_experts", "8"}},
      {[](auto& c) { c.score_function = static_cast<ScoreFunction>(7); },
       {"score_function", "7", "[0, 3]"}},
      {[](auto& c) { c.group_score = static_cast<GroupScore>(9); }, {"group_score", "9", "[0, 2]"}},
      {[](auto& c) { c.routed_scaling_factor = 0.0f; },
       {"routed_scaling_factor", "0", "finite and above 0"}},
      {[](auto& c) { c.routed_scaling_factor = -1.5f; }, {"routed_scaling_factor", "-1.5"}},
      {[](auto& c) { c.routed_scaling_factor = NAN; }, {"routed_scaling_factor", "nan"}},
      {[](auto& c) { c.routed_scaling_factor = INFINITY; }, {"routed_scaling_factor", "inf"}},
      {[](auto& c) { c.num_groups = 0; }, {"num_groups", "0", "[1, 8]"}},
      {[](auto& c) { c.num_groups = 9; }, {"num_groups", "9", "[1, 8]"}},
      {[](auto& c) { c.num_groups = 3; }, {"num_groups", "3", "divide num_experts", "8"}},
      {[](auto& c) { c.num_groups = 4, c.top_groups = 5; }, {"top_groups", "5", "[1, 4]"}},
      {[](auto& c) { c.num_groups = 4, c.top_groups = 0; }, {"top_groups", "0", "[1, 4]"}},
      {[](auto& c) { c.num_groups = 8; }, {"top_k", "2", "1 experts of 1 groups"}},
      {[](auto& c) { c.num_groups = 4, c.top_groups = 3, c.group_score = GroupScore::kTopKSum; },
       {"top_k", "2", "top_groups", "3", "topk_sum"}},
      {[](auto& c) { c.num_shared_experts = -1; }, {"num_shared_experts", "-1", "[0, 64]"}},
      {[](auto& c) { c.num_shared_experts = 65; }, {"num_shared_experts", "65", "[0, 64]"}},
      {[](auto& c) { c.shared_expert_weight = NAN; }, {"shared_expert_weight", "nan", "finite"}},
      {[](auto& c) { c.shared_expert_weight = -INFINITY; }, {"shared_expert_weight", "-inf"}},
  };
  for (const ConfigRefusal& r : refusals) {
    RouterConfig config = kGood;
    r.spoil(config);
    expect_parts(refusal([&] { validate(config); }), r.parts);
    EXPECT_THROW(Router(config, Backend::kReference), InvalidArgument);
    EXPECT_THROW(Router(config, Backend::kCpu), InvalidArgument);
  }
}

TEST(RoutingRefusals, NegativeThreadsAndTokensAreRefused) {
  expect_parts(refusal([] { Router(kGood, Backend::kCpu, {-2, nullptr}); }), {"num_threads", "-2"});
  expect_parts(refusal([] { (void)Router(kGood).workspace_bytes(-1); }), {"max_tokens", "-1"});
}

/// Everything that a call takes, right until a test spoils it.
struct Call {
  static constexpr int64_t kTokens = 5;

  Call() : logits(Distribution::kNormal, DataType::kFloat32, kTokens, 8, 8, 1) {
    inputs.logits = logits.view();
    inputs.selection_bias = {bias.data(), 8};
    inputs.token_mask = {token_mask.data(), kTokens};
    inputs.expert_mask = {expert_mask.data(), 8};
    result.expert_ids = ids.matrix();
    result.gate_weights = weights.matrix();
    result.tokens_per_expert = counts.vector();
    result.num_degenerate_rows = degenerate.vector().data;
    result.loss_sums = losses.vector();
  }

  Logits logits;
  std::vector<float> bias = std::vector<float>(8, 0.0f);
  std::vector<uint8_t> token_mask = std::vector<uint8_t>(kTokens, 1);
  std::vector<uint8_t> expert_mask = std::vector<uint8_t>(8, 1);
  Guarded<int32_t> ids{kTokens, 2, 2};
  Guarded<float> weights{kTokens, 2, 2};
  Guarded<int64_t> counts{1, 8, 8};
  Guarded<int64_t> degenerate{1, 1, 1};
  Guarded<int64_t> losses{1, router_loss_sums_size(8), router_loss_sums_size(8)};
  RoutingInputs inputs;
  RoutingResult result;

  [[nodiscard]] bool untouched() const {
    return ids.untouched() && weights.untouched() && counts.untouched() && degenerate.untouched() &&
           losses.untouched();
  }

  /// Without what is given beside logits, ids and weights.
  void leave_out_options() {
    inputs.selection_bias = {};
    inputs.token_mask = {};
    inputs.expert_mask = {};
    result.tokens_per_expert = {};
    result.loss_sums = {};
  }

  void route(const Router& router) {
    std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(kTokens)));
    router.route(inputs, result, workspace);
  }
};

struct CallRefusal {
  std::function<void(Call&)> spoil;
  std::vector<std::string> parts;
};

const CallRefusal kRefusals[] = {
    {[](Call& c) { c.inputs.logits.cols = 7; }, {"logits", "7 columns", "8"}},
    {[](Call& c) { c.inputs.logits.rows = -1; }, {"logits", "-1 rows", "0 or more"}},
    {[](Call& c) { c.inputs.logits.row_stride = 7; }, {"logits", "row_stride 7", "8"}},
    {[](Call& c) { c.inputs.logits.row_stride = -8; }, {"logits", "row_stride -8", "8"}},
    {[](Call& c) { c.inputs.logits.data = nullptr; }, {"logits", "null"}},
    {[](Call& c) { c.inputs.logits.dtype = static_cast<DataType>(5); },
     {"logits", "5", "F32, F16 or BF16"}},
    {[](Call& c) { c.result.expert_ids.rows = 4; }, {"expert_ids", "4 rows", "5"}},
    {[](Call& c) { c.result.expert_ids.cols = 3; }, {"expert_ids", "3 columns", "2"}},
    {[](Call& c) { c.result.expert_ids.row_stride = 1; }, {"expert_ids", "row_stride 1", "2"}},
    {[](Call& c) { c.result.expert_ids.data = nullptr; }, {"expert_ids", "null"}},
    {[](Call& c) { c.result.gate_weights.dtype = DataType::kFloat16; },
     {"gate_weights", "F16", "F32 or BF16"}},
    {[](Call& c) { c.result.gate_weights.rows = 6; }, {"gate_weights", "6 rows", "5"}},
    {[](Call& c) { c.result.gate_weights.cols = 1; }, {"gate_weights", "1 columns", "2"}},
    {[](Call& c) { c.result.gate_weights.row_stride = 0; }, {"gate_weights", "row_stride 0", "2"}},
    {[](Call& c) { c.result.gate_weights.data = nullptr; }, {"gate_weights", "null"}},
    {[](Call& c) { c.inputs.residency.bonus = -1.0f; }, {"residency.bonus", "-1", "0 or more"}},
    {[](Call& c) { c.inputs.residency.bonus = NAN; }, {"residency.bonus", "nan"}},
    {[](Call& c) { c.inputs.residency.max_swap_loss = -0.5f; }, {"max_swap_loss", "-0.5"}},
    {[](Call& c) { c.inputs.residency.max_sacrificed_share = NAN; },
     {"max_sacrificed_share", "nan"}},
    {[](Call& c) { c.inputs.residency.bonus_scale = static_cast<BonusScale>(2); },
     {"bonus_scale", "2", "[0, 1]"}},
    {[](Call& c) { c.inputs.residency.num_protected = -1; }, {"num_protected", "-1", "[0, 2]"}},
    {[](Call& c) { c.inputs.residency.num_protected = 3; }, {"num_protected", "3", "[0, 2]"}},
};

const CallRefusal kRefusalsOfOptions[] = {
    {[](Call& c) { c.inputs.selection_bias.size = 7; }, {"selection_bias", "7", "8"}},
    {[](Call& c) { c.inputs.selection_bias.size = -1; }, {"selection_bias", "-1", "8"}},
    {[](Call& c) { c.inputs.selection_bias.data = nullptr; }, {"selection_bias", "null"}},
    {[](Call& c) { c.inputs.token_mask.size = 4; }, {"token_mask", "4", "5"}},
    {[](Call& c) { c.inputs.token_mask.data = nullptr; }, {"token_mask", "null"}},
    {[](Call& c) { c.inputs.expert_mask.size = 9; }, {"expert_mask", "9", "8"}},
    {[](Call& c) { c.inputs.expert_mask.data = nullptr; }, {"expert_mask", "null"}},
    {[](Call& c) { c.result.tokens_per_expert.size = 9; }, {"tokens_per_expert", "9", "8"}},
    {[](Call& c) { c.result.tokens_per_expert.data = nullptr; }, {"tokens_per_expert", "null"}},
    {[](Call& c) { c.result.loss_sums.size = 8; }, {"loss_sums", "8", "11"}},
    {[](Call& c) { c.result.loss_sums.data = nullptr; }, {"loss_sums", "null"}},
};

void expect_refused(const Router& router, const CallRefusal& expected, Call call) {
  expected.spoil(call);
  expect_parts(refusal([&] { call.route(router); }), expected.parts);
  EXPECT_TRUE(call.untouched()) << expected.parts[0] << " was refused after something was written";
}

TEST(RoutingRefusals, Contract10_ErrorsNameArgumentValueAndLimitOfTheCall) {
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    const Router router(kGood, backend);
    Call good;
    ASSERT_EQ(refusal([&] { good.route(router); }), "");
    for (const CallRefusal& r : kRefusals) expect_refused(router, r, Call());
    for (const CallRefusal& r : kRefusalsOfOptions) expect_refused(router, r, Call());
  }
}

TEST(RoutingRefusals, Contract10_TheUsualCallIsRefusedInTheSameWords) {
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    const Router router(kGood, backend);
    Call good;
    good.leave_out_options();
    ASSERT_EQ(refusal([&] { good.route(router); }), "");
    for (const CallRefusal& r : kRefusals) {
      Call usual;
      usual.leave_out_options();
      expect_refused(router, r, std::move(usual));
    }
  }
}

TEST(RoutingRefusals, Contract10_ATooSmallWorkspaceNamesBothSizes) {
  const int64_t num_tokens = 20000;  // enough for several tasks, which need memory of their own
  ThreadPool pool(4);
  const Router router(kGood, Backend::kCpu, {4, &pool});
  const int64_t needed = router.workspace_bytes(num_tokens);
  if (needed == 0) GTEST_SKIP() << "this backend needs no workspace";
  const Logits logits(Distribution::kNormal, DataType::kFloat32, num_tokens, 8, 8, 1);
  Guarded<int32_t> ids(num_tokens, 2, 2);
  Guarded<float> weights(num_tokens, 2, 2);
  RoutingInputs inputs;
  inputs.logits = logits.view();
  RoutingResult result;
  result.expert_ids = ids.matrix();
  result.gate_weights = weights.matrix();
  std::vector<std::byte> workspace(static_cast<size_t>(needed - 1));
  expect_parts(refusal([&] { router.route(inputs, result, workspace); }),
               {"workspace", std::to_string(needed - 1), std::to_string(needed)});
  EXPECT_TRUE(ids.untouched() && weights.untouched());
}

TEST(RoutingRefusals, Contract7_NoTokensAreLegalWithoutAnyMemory) {
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    RoutingInputs inputs;
    inputs.logits = MatrixView<const float>(nullptr, 0, 8);
    RoutingResult result;
    result.expert_ids = {nullptr, 0, 2};
    result.gate_weights = MatrixView<float>(nullptr, 0, 2);
    std::vector<int64_t> counts(8, 77);
    std::vector<int64_t> losses(11, 77);
    int64_t degenerate = 77;
    result.tokens_per_expert = {counts.data(), 8};
    result.loss_sums = {losses.data(), 11};
    result.num_degenerate_rows = &degenerate;
    const Router router(kGood, backend);
    std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(0)));
    router.route(inputs, result, workspace);
    EXPECT_EQ(counts, std::vector<int64_t>(8, 0));
    EXPECT_EQ(losses, std::vector<int64_t>(11, 0));
    EXPECT_EQ(degenerate, 0);
  }
}

TEST(RoutingRefusals, ABackendThatIsNotThereIsUnavailable) {
  try {
    const Router router(kGood, Backend::kCuda);
    EXPECT_EQ(router.backend(), Backend::kCuda);
  } catch (const Unavailable& error) {
    EXPECT_NE(std::string(error.what()).find("cuda"), std::string::npos);
  }
}

TEST(RoutingRefusals, TheBackendInUseIsNamed) {
  EXPECT_NE(Router(kGood).backend(), Backend::kAuto);
  EXPECT_EQ(Router(kGood, Backend::kReference).backend(), Backend::kReference);
  EXPECT_EQ(Router(kGood, Backend::kReference).config(), kGood);
}

}  // namespace
}  // namespace switchyard::test
