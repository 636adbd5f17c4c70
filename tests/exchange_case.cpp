#include "tests/exchange_case.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "switchyard/buffer.h"
#include "switchyard/permutation.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

constexpr std::byte kUntouched{0xa5};

/// The whole batch, which every rank makes for itself.
struct Batch {
  int64_t num_tokens = 0;
  std::vector<int64_t> first_token;  // [num_ranks + 1]
  std::vector<int32_t> ids;          // [num_tokens, top_k]
  std::vector<float> weights;        // [num_tokens, top_k]
  std::vector<std::byte> rows;       // [num_tokens, row bytes]
  std::vector<std::byte> scales;     // [num_tokens, scale bytes]
};

int64_t row_bytes(const ExchangeCase& c) { return c.hidden_size * size_of(c.dtype); }

Batch make_batch(const ExchangeCase& c, uint64_t seed) {
  RandomStream random(seed);
  Batch batch;
  batch.first_token.push_back(0);
  for (const int64_t count : c.num_tokens) {
    batch.first_token.push_back(batch.first_token.back() + count);
  }
  batch.num_tokens = batch.first_token.back();
  for (int64_t i = 0; i < batch.num_tokens * c.top_k; ++i) {
    const bool fixed = c.only_expert >= 0 && i % c.top_k == 0;
    const auto any = static_cast<int32_t>(random.below(c.placement.num_experts()));
    batch.ids.push_back(random.chance(c.padding_percent) ? -1 : fixed ? c.only_expert : any);
    batch.weights.push_back(static_cast<float>(random.uniform()));
  }
  batch.rows.resize(static_cast<std::size_t>(batch.num_tokens * row_bytes(c)));
  const TensorView rows{batch.rows.data(), c.dtype, batch.num_tokens, c.hidden_size, c.hidden_size};
  for (int64_t token = 0; token < batch.num_tokens; ++token) {
    for (int64_t i = 0; i < c.hidden_size; ++i) {
      set_element(rows, token, i, static_cast<float>(random.normal()));
    }
  }
  for (int64_t i = 0; i < batch.num_tokens * c.scale_bytes; ++i) {
    batch.scales.push_back(static_cast<std::byte>(random.bits32()));
  }
  return batch;
}

void answer(const TensorView& rows, int64_t row, int32_t expert) {
  for (int64_t i = 0; i < rows.cols; ++i) {
    const float x = element_at(rows, row, i);
    set_element(rows, row, i, std::fma(x, static_cast<float>(expert + 1), 0.25f));
  }
}

/// An assignment on its way.
struct Trip {
  int64_t token;  // of the whole batch
  int32_t choice;
};

/// The expert rows of every slot, by definition.
std::vector<std::vector<Trip>> rows_by_slot(const ExchangeCase& c, const Batch& batch) {
  const ExpertPlacement& placement = c.placement;
  std::vector<std::vector<Trip>> rows(static_cast<std::size_t>(placement.num_slots()));
  for (int32_t rank = 0; rank < placement.num_ranks(); ++rank) {
    const auto at = static_cast<std::size_t>(rank);
    std::vector<int32_t> turns(static_cast<std::size_t>(placement.num_experts()), rank);
    std::vector<int64_t> kept(rows.size());
    const int64_t capacity =
        capacity_rows(c.capacity, c.num_tokens[at], c.top_k, placement.num_slots());
    for (int64_t token = batch.first_token[at]; token < batch.first_token[at + 1]; ++token) {
      for (int32_t choice = 0; choice < c.top_k; ++choice) {
        const int32_t expert = batch.ids[static_cast<std::size_t>(token * c.top_k + choice)];
        if (expert < 0) continue;
        const auto e = static_cast<std::size_t>(expert);
        const int32_t first = placement.replica_offsets()[e];
        const int32_t copies = placement.replica_offsets()[e + 1] - first;
        const int32_t turn = turns[e]++ % copies;
        const auto slot = static_cast<std::size_t>(
            placement
                .replica_slots()[static_cast<std::size_t>(first) + static_cast<std::size_t>(turn)]);
        if (kept[slot]++ < capacity) rows[slot].push_back({token, choice});
      }
    }
  }
  return rows;
}

/// What one rank makes of all tokens, by the reference; dropped assignments left out.
std::vector<std::byte> combined_on_one_rank(const ExchangeCase& c, const Batch& batch) {
  std::vector<int32_t> ids(batch.ids.size(), -1);
  for (const std::vector<Trip>& trips : rows_by_slot(c, batch)) {
    for (const Trip& trip : trips) {
      const auto i = static_cast<std::size_t>(trip.token * c.top_k + trip.choice);
      ids[i] = batch.ids[i];
    }
  }
  const Permuter permuter({.num_experts = c.placement.num_experts(), .top_k = c.top_k},
                          Backend::kReference);
  const PermutationSizes sizes = permuter.sizes(batch.num_tokens);
  Buffer<int64_t> tokens_per_expert(c.placement.num_experts());
  Buffer<int64_t> offsets(c.placement.num_experts() + 1);
  Buffer<int64_t> row_to_assignment(sizes.num_rows);
  Buffer<int64_t> assignment_to_row(batch.num_tokens * c.top_k);
  Buffer<int32_t> blocks(sizes.num_blocks);
  PermutationTotals totals;
  const Permutation permutation{tokens_per_expert.view(),
                                offsets.view(),
                                row_to_assignment.view(),
                                assignment_to_row.matrix(batch.num_tokens, c.top_k),
                                blocks.view(),
                                &totals};
  permuter.sort({ids.data(), batch.num_tokens, c.top_k}, {}, permutation, {});
  std::vector<std::byte> sorted(static_cast<std::size_t>(sizes.num_rows * row_bytes(c)));
  permuter.permute(permutation, {batch.rows.data(), batch.num_tokens, row_bytes(c)},
                   {sorted.data(), sizes.num_rows, row_bytes(c)});
  const TensorView answers{sorted.data(), c.dtype, sizes.num_rows, c.hidden_size, c.hidden_size};
  for (int32_t expert = 0; expert < c.placement.num_experts(); ++expert) {
    for (int64_t row = offsets[expert]; row < offsets[expert + 1]; ++row) {
      answer(answers, row, expert);
    }
  }
  std::vector<std::byte> combined(batch.rows.size());
  permuter.unpermute(permutation, answers,
                     MatrixView<const float>{batch.weights.data(), batch.num_tokens, c.top_k},
                     {combined.data(), c.dtype, batch.num_tokens, c.hidden_size, c.hidden_size});
  return combined;
}

/// One rank's memory, in the communicator's space, with gaps between rows that nobody may touch.
struct Rows {
  Rows(int64_t count, int64_t bytes_a_row, int64_t gap, Backend backend)
      : memory(std::max<int64_t>(1, count * (bytes_a_row + gap)), backend),
        view(memory.data(), count, bytes_a_row, bytes_a_row + gap) {
    std::fill(memory.begin(), memory.end(), kUntouched);
  }
  /// In memory that all ranks can use.
  Rows(int64_t count, int64_t bytes_a_row, int64_t gap, Communicator& communicator) {
    const std::span<std::byte> shared =
        communicator.allocate_shared("test", std::max<int64_t>(1, count * (bytes_a_row + gap)));
    EXPECT_FALSE(shared.empty());
    view = {shared.data(), count, bytes_a_row, bytes_a_row + gap};
    std::fill(shared.begin(), shared.end(), kUntouched);
  }
  void expect_gaps_untouched() const {
    for (int64_t row = 0; row < view.rows; ++row) {
      for (int64_t i = view.cols; i < view.row_stride; ++i) {
        ASSERT_EQ(view.row(row)[i], kUntouched) << "behind row " << row;
      }
    }
  }
  [[nodiscard]] TensorView tensor(DataType dtype) const {
    const int64_t element = size_of(dtype);
    return {view.data, dtype, view.rows, view.cols / element, view.row_stride / element};
  }

  Buffer<std::byte> memory;
  MatrixView<std::byte> view;
};

class RankOfCase {
 public:
  RankOfCase(Communicator& communicator, const ExchangeCase& exchange_case)
      : communicator_(communicator),
        case_(exchange_case),
        backend_(communicator.backend()),
        rank_(static_cast<std::size_t>(communicator.rank())),
        exchange_({.placement = exchange_case.placement,
                   .top_k = exchange_case.top_k,
                   .max_tokens = *std::max_element(exchange_case.num_tokens.begin(),
                                                   exchange_case.num_tokens.end()),
                   .block_rows = exchange_case.block_rows,
                   .capacity = exchange_case.capacity,
                   .deduplicate = exchange_case.deduplicate},
                  communicator),
        plan_(exchange_.make_plan()) {}

  void run(uint64_t seed) {
    batch_ = make_batch(case_, seed);
    const int64_t num_tokens = case_.num_tokens[rank_];
    const int64_t first = batch_.first_token[rank_];
    Buffer<int32_t> ids(num_tokens * case_.top_k, backend_);
    Buffer<float> weights(num_tokens * case_.top_k, backend_);
    for (int64_t i = 0; i < ids.size(); ++i) {
      const auto at = static_cast<std::size_t>(first * case_.top_k + i);
      ids[i] = batch_.ids[at];
      weights[i] = batch_.weights[at];
    }
    Buffer<std::byte> workspace(exchange_.plan_workspace_bytes(), backend_);
    exchange_.plan(std::as_const(ids).matrix(num_tokens, case_.top_k), plan_, workspace.bytes());
    ASSERT_TRUE(plan_.status().is_ready);
    expect_plan();
    for (int repeat = 0; repeat < 2; ++repeat) move(weights);
  }

 private:
  void expect_plan() const {
    const auto by_slot = rows_by_slot(case_, batch_);
    const ExpertPlacement& placement = case_.placement;
    int64_t next = 0;
    for (int32_t local = 0; local < placement.num_slots_of(communicator_.rank()); ++local) {
      const auto slot = static_cast<std::size_t>(placement.slot_offsets()[rank_] + local);
      const auto count = static_cast<int64_t>(by_slot[slot].size());
      ASSERT_EQ(plan_.expert_offsets()[local], next);
      ASSERT_EQ(plan_.tokens_per_expert()[local], count);
      next += (count + case_.block_rows - 1) / case_.block_rows * case_.block_rows;
    }
    ASSERT_EQ(plan_.num_expert_rows(), next);
    const AllToAllCounts back = plan_.combine_counts();
    int64_t sum = 0;
    for (int rank = 0; rank < communicator_.size(); ++rank) {
      ASSERT_EQ(back.recv_offsets[rank], sum);
      sum += back.recv_counts[rank];
      if (!case_.deduplicate) {
        ASSERT_EQ(plan_.dispatch_counts().send_counts[rank], back.recv_counts[rank]);
        ASSERT_EQ(plan_.dispatch_counts().inverse().send_counts[rank], back.send_counts[rank]);
      } else {
        ASSERT_LE(plan_.dispatch_counts().send_counts[rank], back.recv_counts[rank]);
      }
    }
    ASSERT_EQ(plan_.totals().kept_assignments, sum);
  }

  void copy_own(const std::vector<std::byte>& all, const Rows& to) const {
    if (all.empty()) return;
    for (int64_t token = 0; token < to.view.rows; ++token) {
      std::memcpy(to.view.row(token),
                  all.data() + (batch_.first_token[rank_] + token) * to.view.cols,
                  static_cast<std::size_t>(to.view.cols));
    }
  }

  void move(const Buffer<float>& weights) {
    const int64_t num_tokens = case_.num_tokens[rank_];
    const int64_t bytes = row_bytes(case_);
    const int64_t gap = case_.stride_padding * size_of(case_.dtype);
    Rows tokens(num_tokens, bytes, gap, backend_);
    Rows scales(num_tokens, case_.scale_bytes, gap, backend_);
    copy_own(batch_.rows, tokens);
    copy_own(batch_.scales, scales);
    // Memory of another length on every rank.
    const int64_t num_rows = plan_.num_expert_rows() + communicator_.rank() % 2;
    Rows expert_rows = case_.shares_rows ? Rows(num_rows, bytes, gap, communicator_)
                                         : Rows(num_rows, bytes, gap, backend_);
    Rows expert_scales(num_rows, case_.scale_bytes, gap, backend_);
    DispatchRows scale_rows;
    if (case_.scale_bytes > 0) scale_rows = {scales.view, expert_scales.view};
    Buffer<std::byte> workspace(
        exchange_.dispatch_workspace_bytes(plan_, bytes + case_.scale_bytes), backend_);
    exchange_.start_dispatch(plan_, {tokens.view, expert_rows.view}, scale_rows, workspace.bytes());
    exchange_.finish_dispatch();
    synchronize(backend_);
    expect_rows(expert_rows, batch_.rows);
    if (case_.scale_bytes > 0) expect_rows(expert_scales, batch_.scales);

    const TensorView answers = expert_rows.tensor(case_.dtype);
    const VectorView<const int64_t> offsets = plan_.expert_offsets();
    const auto first_slot = case_.placement.slot_offsets()[rank_];
    for (int32_t local = 0; local + 1 < offsets.size; ++local) {
      const int32_t expert = case_.placement.slot_to_expert()[static_cast<std::size_t>(first_slot) +
                                                              static_cast<std::size_t>(local)];
      for (int64_t row = offsets[local]; row < offsets[local + 1]; ++row) {
        answer(answers, row, expert);
      }
    }
    Rows combined(num_tokens, bytes, gap, backend_);
    Buffer<std::byte> memory(
        exchange_.combine_workspace_bytes(plan_, case_.hidden_size, case_.dtype), backend_);
    exchange_.start_combine(
        plan_, {answers, weights.matrix(num_tokens, case_.top_k), combined.tensor(case_.dtype)},
        memory.bytes());
    exchange_.finish_combine();
    synchronize(backend_);
    const std::vector<std::byte> expected = combined_on_one_rank(case_, batch_);
    for (int64_t token = 0; token < num_tokens; ++token) {
      ASSERT_EQ(std::memcmp(combined.view.row(token),
                            expected.data() + (batch_.first_token[rank_] + token) * bytes,
                            static_cast<std::size_t>(bytes)),
                0)
          << "token " << token << " of rank " << rank_;
    }
    combined.expect_gaps_untouched();
  }

  void expect_rows(const Rows& rows, const std::vector<std::byte>& all) const {
    const auto by_slot = rows_by_slot(case_, batch_);
    const std::vector<std::byte> zeros(static_cast<std::size_t>(rows.view.cols));
    const auto bytes = static_cast<std::size_t>(rows.view.cols);
    const VectorView<const int64_t> offsets = plan_.expert_offsets();
    const auto first_slot = static_cast<std::size_t>(case_.placement.slot_offsets()[rank_]);
    for (int64_t local = 0; local + 1 < offsets.size; ++local) {
      const std::vector<Trip>& trips = by_slot[first_slot + static_cast<std::size_t>(local)];
      for (int64_t row = offsets[local]; row < offsets[local + 1]; ++row) {
        const auto i = static_cast<std::size_t>(row - offsets[local]);
        const std::byte* expected =
            i < trips.size() ? all.data() + trips[i].token * rows.view.cols : zeros.data();
        ASSERT_EQ(std::memcmp(rows.view.row(row), expected, bytes), 0)
            << "row " << row << " of rank " << rank_;
      }
    }
    for (int64_t row = plan_.num_expert_rows(); row < rows.view.rows; ++row) {
      for (std::size_t i = 0; i < bytes; ++i) ASSERT_EQ(rows.view.row(row)[i], kUntouched);
    }
    rows.expect_gaps_untouched();
  }

  Communicator& communicator_;
  const ExchangeCase& case_;
  Backend backend_;
  std::size_t rank_;
  ExpertExchange exchange_;
  AllToAllPlan plan_;
  Batch batch_;
};

std::vector<int64_t> even(int num_ranks, int64_t num_tokens) {
  std::vector<int64_t> counts(static_cast<std::size_t>(num_ranks), num_tokens);
  return counts;
}

/// 0, 3, 6, …: no tokens on rank 0, other numbers on every other rank.
std::vector<int64_t> rising(int num_ranks) {
  std::vector<int64_t> counts;
  for (int rank = 0; rank < num_ranks; ++rank) counts.push_back(3 * rank);
  return counts;
}

/// Every expert twice, the copies far apart, and an empty slot on every rank.
ExpertPlacement with_copies(int32_t num_experts, int num_ranks) {
  const int32_t per_rank = (2 * num_experts + num_ranks - 1) / num_ranks + 1;
  std::vector<int32_t> slots(static_cast<std::size_t>(per_rank * num_ranks), -1);
  int32_t next = 0;
  for (std::size_t i = 0; i < slots.size() && next < 2 * num_experts; ++i) {
    if (static_cast<int32_t>(i) % per_rank == per_rank - 1) continue;
    slots[i] = next++ % num_experts;
  }
  return ExpertPlacement::from_slots(num_experts, num_ranks, slots);
}

}  // namespace

void check_exchange(Communicator& communicator, const ExchangeCase& exchange_case) {
  RankOfCase rank(communicator, exchange_case);
  rank.run(exchange_case.seed);
  rank.run(exchange_case.seed + 1000);
}

std::vector<ExchangeCase> exchange_cases(int num_ranks) {
  const auto blocks = [&](int32_t experts) {
    return ExpertPlacement::contiguous(experts, num_ranks);
  };
  std::vector<ExchangeCase> cases;
  cases.push_back({.placement = blocks(8), .num_tokens = even(num_ranks, 20)});
  cases.push_back({.placement = blocks(7),
                   .top_k = 3,
                   .num_tokens = rising(num_ranks),
                   .hidden_size = 5,
                   .scale_bytes = 3,
                   .block_rows = 8,
                   .stride_padding = 1});
  cases.push_back({.placement = blocks(1), .top_k = 1, .num_tokens = even(num_ranks, 9)});
  cases.push_back({.placement = blocks(16),
                   .top_k = 4,
                   .num_tokens = even(num_ranks, 33),
                   .hidden_size = 40,
                   .dtype = DataType::kBFloat16,
                   .block_rows = 16,
                   .only_expert = 15});
  cases.push_back({.placement = blocks(4), .num_tokens = even(num_ranks, 0)});
  cases.push_back(
      {.placement = blocks(4), .num_tokens = even(num_ranks, 5), .padding_percent = 100});
  cases.push_back({.placement = with_copies(6, num_ranks),
                   .top_k = 3,
                   .num_tokens = rising(num_ranks),
                   .hidden_size = 16,
                   .dtype = DataType::kFloat16});
  cases.push_back({.placement = blocks(8),
                   .top_k = 2,
                   .num_tokens = even(num_ranks, 24),
                   .capacity = {.mode = ExpertCapacity::Mode::kFixed, .rows = 3}});
  const std::size_t num_plain = cases.size();
  for (std::size_t i = 0; i < num_plain; ++i) {
    cases.push_back(cases[i]);
    cases.back().deduplicate = true;
    cases.back().seed = 100 + i;
  }
  return cases;
}

}  // namespace switchyard::test
