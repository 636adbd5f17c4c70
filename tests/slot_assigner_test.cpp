// Slot assignment: the rule by hand, and every backend against the definition.
#include "switchyard/slot_assigner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/errors.h"
#include "tests/backend_variants.h"
#include "tests/guarded.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

using Ids = std::vector<int32_t>;

struct AssignCase {
  ExpertPlacement placement = ExpertPlacement::contiguous(1, 1);
  int32_t top_k = 1;
  int32_t rank = 0;
  BackendVector<int32_t> expert_ids;  ///< [tokens, top_k + id_padding], nothing behind the last
  int64_t num_tokens = 0;
  int64_t id_padding = 0;
  int64_t slot_padding = 0;

  [[nodiscard]] int64_t id_stride() const { return top_k + id_padding; }
  [[nodiscard]] int32_t id_at(int64_t token, int64_t choice) const {
    return expert_ids[static_cast<size_t>(token * id_stride() + choice)];
  }
};

struct Assigned {
  Ids slot_ids;
  std::vector<int64_t> tokens_per_slot;

  bool operator==(const Assigned&) const = default;
};

Assigned assign(const AssignCase& c, Backend backend, CpuThreads threads = {}) {
  const SlotAssigner assigner(c.placement, c.top_k, backend, threads);
  Guarded<int32_t> slots(c.num_tokens, c.top_k, c.top_k + c.slot_padding);
  Guarded<int64_t> counts(1, c.placement.num_slots(), c.placement.num_slots());
  const int64_t bytes = assigner.workspace_bytes(c.num_tokens);
  Guarded<std::byte> workspace(1, bytes, bytes);
  assigner.assign({c.expert_ids.data(), c.num_tokens, c.top_k, c.id_stride()}, c.rank,
                  slots.matrix(), counts.vector(),
                  {workspace.vector().data, static_cast<size_t>(bytes)});
  finish_backends();
  EXPECT_TRUE(slots.intact() && counts.intact() && workspace.intact())
      << "written outside of the output";
  return {slots.dense(), counts.dense()};
}

/// What must come out, by counting for each assignment how many go before it.
Assigned defined(const AssignCase& c) {
  Assigned out;
  out.tokens_per_slot.assign(static_cast<size_t>(c.placement.num_slots()), 0);
  for (int64_t i = 0; i < c.num_tokens * c.top_k; ++i) {
    const int32_t expert = c.id_at(i / c.top_k, i % c.top_k);
    int32_t slot = -1;
    if (expert >= 0) {
      int64_t before = 0;
      for (int64_t j = 0; j < i; ++j) before += c.id_at(j / c.top_k, j % c.top_k) == expert;
      Ids copies;
      for (int32_t s = 0; s < c.placement.num_slots(); ++s) {
        if (c.placement.slot_to_expert()[static_cast<size_t>(s)] == expert) copies.push_back(s);
      }
      slot = copies[static_cast<size_t>(before + c.rank) % copies.size()];
      ++out.tokens_per_slot[static_cast<size_t>(slot)];
    }
    out.slot_ids.push_back(slot);
  }
  return out;
}

AssignCase make_case(ExpertPlacement placement, int32_t top_k, int32_t rank, const Ids& ids) {
  AssignCase c;
  c.placement = std::move(placement);
  c.top_k = top_k;
  c.rank = rank;
  c.expert_ids.assign(ids.begin(), ids.end());
  c.num_tokens = static_cast<int64_t>(ids.size()) / top_k;
  return c;
}

/// Copies anywhere, empty slots, popular experts, empty choices and padding tokens.
AssignCase random_case(RandomStream& random, int64_t num_tokens, int32_t top_k) {
  const auto num_experts = static_cast<int32_t>(random.below(random.chance(20) ? 500 : 20)) + 1;
  const auto num_ranks = static_cast<int32_t>(random.below(9)) + 1;
  AssignCase c;
  if (random.chance(20)) {
    c.placement = ExpertPlacement::contiguous(num_experts, num_ranks);
  } else {
    Ids slots;
    for (int32_t expert = 0; expert < num_experts; ++expert) slots.push_back(expert);
    const int64_t more = random.below(2 * num_experts);
    for (int64_t i = 0; i < more; ++i) {
      slots.push_back(random.chance(30) ? 0
                                        : static_cast<int32_t>(random.below(num_experts + 1)) - 1);
    }
    while (slots.size() % static_cast<size_t>(num_ranks) != 0) slots.push_back(-1);
    for (size_t i = slots.size(); i > 1; --i) {
      std::swap(slots[i - 1], slots[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
    }
    c.placement = ExpertPlacement::from_slots(num_experts, num_ranks, slots);
  }
  c.top_k = top_k;
  c.rank = static_cast<int32_t>(random.below(num_ranks));
  c.num_tokens = num_tokens;
  c.id_padding = random.below(3);
  c.slot_padding = random.below(3);
  // Never read between the rows.
  c.expert_ids.assign(static_cast<size_t>(num_tokens * c.id_stride()),
                      std::numeric_limits<int32_t>::max());
  for (int64_t token = 0; token < num_tokens; ++token) {
    const bool is_padding = random.chance(5);
    for (int64_t choice = 0; choice < c.top_k; ++choice) {
      auto id = static_cast<int32_t>(random.below(num_experts));
      if (random.chance(30)) id = 0;
      if (is_padding || random.chance(5)) id = -1;
      c.expert_ids[static_cast<size_t>(token * c.id_stride() + choice)] = id;
    }
  }
  return c;
}

AssignCase small_case(RandomStream& random) {
  constexpr int32_t kTopK[] = {1, 2, 3, 8, 128};
  const int32_t top_k = random.pick(kTopK);
  return random_case(random, random.below(top_k > 8 ? 6 : 60), top_k);
}

class SlotAssignment : public testing::TestWithParam<Backend> {};

TEST_P(SlotAssignment, CopiesTakeTurnsFromTheRanksOnOn) {
  // Expert 0 has slots 1, 2 and 5; expert 1 slot 0; expert 2 slots 3 and 4.
  const auto placement = ExpertPlacement::from_slots(3, 2, Ids{1, 0, 0, 2, 2, 0});
  const Ids ids = {0, 1, 0, -1, 2, 0, 0, 2, -1, -1, 1, 0};
  const auto first = assign(make_case(placement, 2, 0, ids), GetParam());
  EXPECT_EQ(first.slot_ids, (Ids{1, 0, 2, -1, 3, 5, 1, 4, -1, -1, 0, 2}));
  EXPECT_EQ(first.tokens_per_slot, (std::vector<int64_t>{2, 2, 2, 1, 1, 1}));
  const auto second = assign(make_case(placement, 2, 1, ids), GetParam());
  EXPECT_EQ(second.slot_ids, (Ids{2, 0, 5, -1, 4, 1, 2, 3, -1, -1, 0, 5}));
  EXPECT_EQ(second.tokens_per_slot, (std::vector<int64_t>{2, 1, 2, 1, 1, 2}));
}

TEST_P(SlotAssignment, EmptySlotsGetNothing) {
  const auto placement = ExpertPlacement::from_slots(2, 2, Ids{-1, 1, 0, -1});
  const auto assigned = assign(make_case(placement, 1, 1, {0, 1, 1}), GetParam());
  EXPECT_EQ(assigned.slot_ids, (Ids{2, 1, 1}));
  EXPECT_EQ(assigned.tokens_per_slot, (std::vector<int64_t>{0, 2, 1, 0}));
}

TEST_P(SlotAssignment, IdsOfExpertsServeAsSlotsWhereTheyAreTheSame) {
  const auto placement = ExpertPlacement::contiguous(4, 3);
  const auto assigned = assign(make_case(placement, 2, 2, {3, 0, -1, 3, 1, 1}), GetParam());
  EXPECT_EQ(assigned.slot_ids, (Ids{3, 0, -1, 3, 1, 1}));
  EXPECT_EQ(assigned.tokens_per_slot, (std::vector<int64_t>{1, 2, 0, 2}));
}

TEST_P(SlotAssignment, NoTokensAreLegal) {
  const auto placement = ExpertPlacement::from_slots(2, 1, Ids{1, 0, 0});
  const auto assigned = assign(make_case(placement, 8, 0, {}), GetParam());
  EXPECT_EQ(assigned.tokens_per_slot, (std::vector<int64_t>{0, 0, 0}));
}

TEST_P(SlotAssignment, CopiesDifferByAtMostOne) {
  RandomStream random(41);
  for (int i = 0; i < 50; ++i) {
    const AssignCase c = small_case(random);
    const Assigned assigned = assign(c, GetParam());
    for (int32_t expert = 0; expert < c.placement.num_experts(); ++expert) {
      int64_t least = std::numeric_limits<int64_t>::max();
      int64_t most = 0;
      for (int32_t slot = 0; slot < c.placement.num_slots(); ++slot) {
        if (c.placement.slot_to_expert()[static_cast<size_t>(slot)] != expert) continue;
        least = std::min(least, assigned.tokens_per_slot[static_cast<size_t>(slot)]);
        most = std::max(most, assigned.tokens_per_slot[static_cast<size_t>(slot)]);
      }
      ASSERT_LE(most - least, 1) << "expert " << expert << ", iteration " << i;
    }
  }
}

TEST_P(SlotAssignment, TellsWhatItIsFor) {
  const auto placement = ExpertPlacement::from_slots(2, 1, Ids{1, 0, 0});
  const SlotAssigner assigner(placement, 6, GetParam());
  EXPECT_EQ(assigner.placement(), placement);
  EXPECT_EQ(assigner.top_k(), 6);
  EXPECT_EQ(assigner.backend(), GetParam());
}

class SlotAssignerRefusals : public SlotAssignment {
 protected:
  struct Call {
    MatrixView<const int32_t> expert_ids;
    int32_t rank = 0;
    MatrixView<int32_t> slot_ids;
    VectorView<int64_t> tokens_per_slot;
    std::span<std::byte> workspace;
  };

  /// What is said of a good call of 2 tokens with 2 of 3 experts, changed.
  template <typename Change>
  std::string refusal(const Change& change) {
    const SlotAssigner assigner(ExpertPlacement::from_slots(3, 2, Ids{2, 0, 1, 2}), 2, GetParam());
    BackendVector<std::byte> workspace(static_cast<size_t>(assigner.workspace_bytes(2)));
    Call call{{ids_.data(), 2, 2}, 0, slots_.matrix(), counts_.vector(), workspace};
    change(call);
    std::string text = "accepted";
    try {
      assigner.assign(call.expert_ids, call.rank, call.slot_ids, call.tokens_per_slot,
                      call.workspace);
    } catch (const InvalidArgument& error) {
      text = error.what();
    }
    finish_backends();
    return text;
  }

  /// The same of a good call with these ids.
  std::string refusal_of(const Ids& ids) {
    ids_.assign(ids.begin(), ids.end());
    return refusal([](Call&) {});
  }

  [[nodiscard]] bool untouched() const { return slots_.untouched() && counts_.untouched(); }

  BackendVector<int32_t> ids_{0, 1, 2, -1};
  Guarded<int32_t> slots_{2, 2, 2};
  Guarded<int64_t> counts_{1, 4, 4};
};

TEST_P(SlotAssignerRefusals, Contract10_NameArgumentValueAndLimitAndWriteNothing) {
  EXPECT_EQ(refusal([](Call& call) { call.expert_ids.rows = -1; }),
            "expert_ids rows is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal([](Call& call) { call.expert_ids.cols = 1; }),
            "expert_ids has 1 columns, must have 2");
  EXPECT_EQ(refusal([](Call& call) { call.expert_ids.row_stride = 1; }),
            "expert_ids has row_stride 1, must be at least its 2 columns");
  EXPECT_EQ(refusal([](Call& call) { call.expert_ids.data = nullptr; }),
            "expert_ids is a null pointer");
  EXPECT_EQ(refusal([](Call& call) { call.rank = -1; }), "rank is -1, must be in [0, 1]");
  EXPECT_EQ(refusal([](Call& call) { call.rank = 2; }), "rank is 2, must be in [0, 1]");
  EXPECT_EQ(refusal([](Call& call) { call.slot_ids.rows = 3; }),
            "slot_ids has 3 rows, must have 2");
  EXPECT_EQ(refusal([](Call& call) { call.slot_ids.data = nullptr; }),
            "slot_ids is a null pointer");
  EXPECT_EQ(refusal([](Call& call) { call.tokens_per_slot.size = 3; }),
            "tokens_per_slot has 3 elements, must have 4");
  EXPECT_TRUE(untouched());
  EXPECT_EQ(refusal([](Call&) {}), "accepted");
}

TEST_P(SlotAssignerRefusals, Contract10_NameTheWorkspaceThatIsNeeded) {
  const std::string text = refusal([](Call& call) {
    if (!call.workspace.empty()) call.workspace = call.workspace.first(call.workspace.size() - 1);
  });
  if (GetParam() == Backend::kReference) {
    EXPECT_EQ(text, "accepted") << "it takes none";
    return;
  }
  EXPECT_EQ(text.find("workspace holds "), 0u) << text;
  EXPECT_TRUE(untouched());
}

TEST_P(SlotAssignerRefusals, Contract10_HostsNameUnknownIdsAndWriteNothing) {
  if (GetParam() == Backend::kCuda) GTEST_SKIP() << "a device cannot refuse what it finds";
  EXPECT_EQ(refusal_of({0, 1, 3, -1}), "expert_ids of token 1, slot 0 is 3, must be in [-1, 2]");
  EXPECT_EQ(refusal_of({0, -2, 3, -1}), "expert_ids of token 0, slot 1 is -2, must be in [-1, 2]");
  EXPECT_EQ(refusal_of({0, 1, 2, std::numeric_limits<int32_t>::max()}),
            "expert_ids of token 1, slot 1 is 2147483647, must be in [-1, 2]");
  EXPECT_EQ(refusal_of({std::numeric_limits<int32_t>::min(), 1, 2, 0}),
            "expert_ids of token 0, slot 0 is -2147483648, must be in [-1, 2]");
  EXPECT_TRUE(untouched());
}

TEST_P(SlotAssignerRefusals, Contract10_ConstructionNamesArgumentValueAndLimit) {
  const auto refusal_to_make = [](const ExpertPlacement& placement, int32_t top_k) {
    try {
      const SlotAssigner assigner(placement, top_k, GetParam());
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const auto one = ExpertPlacement::contiguous(1, 1);
  EXPECT_EQ(refusal_to_make(one, 0), "top_k is 0, must be in [1, 128]");
  EXPECT_EQ(refusal_to_make(one, 129), "top_k is 129, must be in [1, 128]");
  EXPECT_EQ(refusal_to_make(ExpertPlacement::from_slots(1, 1, Ids(4097, 0)), 1),
            "num_slots is 4097, must be in [1, 4096]");
  EXPECT_EQ(refusal_to_make(ExpertPlacement::from_slots(1, 1, Ids(4096, 0)), 128), "accepted");
  EXPECT_THROW((void)SlotAssigner(one, 1, GetParam()).workspace_bytes(-1), InvalidArgument);
}

TEST(DeviceSlotAssignment, Contract2_IdsOutOfRangeAreNobodys) {
  if (backend_variants().front().backend != Backend::kCuda) GTEST_SKIP() << "hosts refuse such ids";
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  constexpr int32_t kLeast = std::numeric_limits<int32_t>::min();
  const auto placement = ExpertPlacement::from_slots(2, 1, Ids{1, 0, 0});
  const auto assigned =
      assign(make_case(placement, 2, 0, {2, 0, kMost, kLeast, -2, 0, 0, 1}), Backend::kCuda);
  EXPECT_EQ(assigned.slot_ids, (Ids{-1, 1, -1, -1, -1, 2, 1, 0}));
  EXPECT_EQ(assigned.tokens_per_slot, (std::vector<int64_t>{1, 2, 1}));
}

std::vector<Backend> backends() {
  return {Backend::kReference, backend_variants().front().backend};
}

std::string test_name(const testing::TestParamInfo<Backend>& test) { return name_of(test.param); }

INSTANTIATE_TEST_SUITE_P(Backends, SlotAssignment, testing::ValuesIn(backends()), test_name);
INSTANTIATE_TEST_SUITE_P(Backends, SlotAssignerRefusals, testing::ValuesIn(backends()), test_name);

TEST(SlotAssignmentConformance, Contract4_TheReferenceIsTheDefinition) {
  RandomStream random(43);
  for (int i = 0; i < 200; ++i) {
    const AssignCase c = small_case(random);
    ASSERT_EQ(assign(c, Backend::kReference), defined(c)) << "iteration " << i;
  }
}

void expect_the_references_bits(const AssignCase& c, int iteration) {
  const Assigned expected = assign(c, Backend::kReference);
  for (const BackendVariant& variant : backend_variants()) {
    const ScopedCpuTarget target(variant.target);
    ASSERT_TRUE(assign(c, variant.backend, variant.threads) == expected)
        << variant.name << ", iteration " << iteration;
  }
}

TEST(SlotAssignmentConformance, Contract4_EveryBackendEqualsTheReference) {
  RandomStream random(47);
  for (int i = 0; i < 100; ++i) {
    expect_the_references_bits(small_case(random), i);
  }
}

// Enough assignments that several threads, or blocks, take their parts.
TEST(SlotAssignmentConformance, Contract4_EveryBackendEqualsTheReferenceForManyTokens) {
  RandomStream random(53);
  for (int i = 0; i < 4; ++i) {
    expect_the_references_bits(random_case(random, 11000, 8), i);
  }
}

}  // namespace
}  // namespace switchyard::test
