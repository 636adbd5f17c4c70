#include "tests/permutation_case.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <limits>

namespace switchyard::test {

namespace {

class HostRoute final : public PermuterRoute {
 public:
  HostRoute(const PermuterVariant& variant, const PermutationConfig& config)
      : permuter_(config, variant.backend, variant.threads) {}

  [[nodiscard]] PermutationSizes sizes(int64_t num_tokens) const override {
    return permuter_.sizes(num_tokens);
  }
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    return permuter_.workspace_bytes(max_tokens);
  }
  void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
            const Permutation& out, std::span<std::byte> workspace) const override {
    permuter_.sort(expert_ids, gate_weights, out, workspace);
  }
  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted) const override {
    permuter_.permute(permutation, tokens, sorted);
  }
  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens) const override {
    permuter_.unpermute(permutation, sorted, gate_weights, tokens);
  }
  void permute_to(MatrixView<const std::byte> tokens, MatrixView<const int64_t> offsets,
                  std::span<std::byte> memory) const override {
    permuter_.permute_to(tokens, RowAddresses(offsets, memory.data()).view());
  }
  void unpermute_from(MatrixView<const int64_t> offsets, std::span<const std::byte> memory,
                      DataType dtype, ConstTensorView gate_weights,
                      TensorView tokens) const override {
    permuter_.unpermute_from(RowAddresses(offsets, memory.data()).view(), dtype, gate_weights,
                             tokens);
  }

 private:
  const Permuter permuter_;
};

}  // namespace

std::unique_ptr<PermuterRoute> host_route(const PermuterVariant& variant,
                                          const PermutationConfig& config) {
  return std::make_unique<HostRoute>(variant, config);
}

std::string test_name(const PermuterVariant& variant) {
  std::string name;
  for (const char c : variant.name) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) name += c;
  }
  return name;
}

ConstTensorView PermutationCase::gate_weights() const {
  if (weight_type == DataType::kBFloat16) {
    return MatrixView<const BFloat16>(narrow.data(), num_tokens, config.top_k, stride());
  }
  return MatrixView<const float>(weights.data(), num_tokens, config.top_k, stride());
}

PermutationCase make_case(PermutationConfig config, const std::vector<std::vector<int32_t>>& ids) {
  PermutationCase batch;
  batch.config = config;
  batch.num_tokens = static_cast<int64_t>(ids.size());
  for (const auto& row : ids) {
    batch.ids.insert(batch.ids.end(), row.begin(), row.end());
    for (size_t i = 0; i < row.size(); ++i) {
      batch.weights.push_back(static_cast<float>(batch.weights.size() + 1));
    }
  }
  return batch;
}

namespace {

float random_weight(RandomStream& random) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kSpecial[] = {
      std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity, 0.0f, -0.0f, 0x1p-140f};
  if (random.chance(15)) return random.pick(kSpecial);
  // Few distinct values, so that ties are common, and all of them bfloat16s.
  return static_cast<float>(random.below(9) - 2) / 8.0f;
}

}  // namespace

PermutationCase random_case(const PermutationConfig& config, int64_t num_tokens, int64_t padding,
                            DataType weight_type, RandomStream& random) {
  PermutationCase batch;
  batch.config = config;
  batch.num_tokens = num_tokens;
  batch.padding = padding;
  batch.weight_type = weight_type;
  const auto elements = static_cast<size_t>(num_tokens * batch.stride());
  batch.ids.assign(elements, std::numeric_limits<int32_t>::min());  // never read between the rows
  batch.weights.assign(elements, 0.0f);
  const auto popular = static_cast<int32_t>(random.below(config.num_experts));
  for (int64_t token = 0; token < num_tokens; ++token) {
    const bool is_padding = random.chance(5);
    for (int64_t slot = 0; slot < config.top_k; ++slot) {
      const auto index = static_cast<size_t>(token * batch.stride() + slot);
      int32_t id = static_cast<int32_t>(random.below(config.num_experts));
      if (random.chance(20)) id = popular;
      if (is_padding || random.chance(5)) id = -1;
      batch.ids[index] = id;
      batch.weights[index] = random_weight(random);
    }
  }
  if (weight_type == DataType::kBFloat16) {
    for (float& weight : batch.weights) {
      batch.narrow.push_back(to_bfloat16(weight));
      weight = widen(batch.narrow.back());
    }
  }
  return batch;
}

namespace {

/// Whether a full expert keeps assignment `a` before assignment `b` of the same expert.
bool goes_before(const PermutationCase& batch, int64_t a, int64_t b) {
  if (batch.config.capacity.drop_policy == DropPolicy::kPosition) return a < b;
  const int32_t top_k = batch.config.top_k;
  const float weight_a = batch.weight_at(a / top_k, a % top_k);
  const float weight_b = batch.weight_at(b / top_k, b % top_k);
  if (std::isnan(weight_a) != std::isnan(weight_b)) return std::isnan(weight_b);
  if (std::isnan(weight_a) || weight_a == weight_b) return a < b;
  return weight_a > weight_b;
}

}  // namespace

SortedBatch defined_sort(const PermutationCase& batch, const PermutationSizes& sizes) {
  const PermutationConfig& config = batch.config;
  const int64_t assignments = batch.num_tokens * config.top_k;
  const int64_t capacity =
      capacity_rows(config.capacity, batch.num_tokens, config.top_k, config.num_experts);
  SortedBatch sorted;
  sorted.row_to_assignment.assign(static_cast<size_t>(sizes.num_rows), -1);
  sorted.assignment_to_row.assign(static_cast<size_t>(assignments), -1);
  sorted.block_experts.assign(static_cast<size_t>(sizes.num_blocks), -1);
  std::vector<int> lost(static_cast<size_t>(batch.num_tokens), 0);
  std::vector<int> kept(static_cast<size_t>(batch.num_tokens), 0);
  int64_t row = 0;
  for (int32_t local = 0; local < config.num_local(); ++local) {
    std::vector<int64_t> mine;
    for (int64_t a = 0; a < assignments; ++a) {
      if (batch.id_at(a / config.top_k, a % config.top_k) == config.first_local_expert + local) {
        mine.push_back(a);
      }
    }
    sorted.expert_offsets.push_back(row);
    int64_t count = 0;
    for (const int64_t a : mine) {
      int64_t before = 0;
      for (const int64_t b : mine) before += b != a && goes_before(batch, b, a) ? 1 : 0;
      const auto token = static_cast<size_t>(a / config.top_k);
      if (before >= capacity) {
        ++lost[token];
        ++sorted.totals.dropped_assignments;
        continue;
      }
      ++kept[token];
      sorted.row_to_assignment[static_cast<size_t>(row + count)] = a;
      sorted.assignment_to_row[static_cast<size_t>(a)] = row + count;
      ++count;
    }
    sorted.tokens_per_expert.push_back(count);
    sorted.totals.kept_assignments += count;
    const int64_t begin = row;
    row += count;
    while (row % config.block_rows != 0) ++row;
    for (int64_t block = begin / config.block_rows; block < row / config.block_rows; ++block) {
      sorted.block_experts[static_cast<size_t>(block)] = local;
    }
  }
  sorted.expert_offsets.push_back(row);
  sorted.totals.num_rows = row;
  for (size_t token = 0; token < lost.size(); ++token) {
    if (lost[token] > 0 && kept[token] == 0) ++sorted.totals.fully_dropped_tokens;
  }
  return sorted;
}

namespace {

template <typename T>
Guarded<T> guarded_vector(int64_t size) {
  return Guarded<T>(1, size, size);
}

}  // namespace

GuardedPermutation::GuardedPermutation(const PermutationSizes& sizes, int64_t workspace_bytes,
                                       const PermutationCase& batch)
    : tokens_per_expert_(guarded_vector<int64_t>(batch.config.num_local())),
      expert_offsets_(guarded_vector<int64_t>(batch.config.num_local() + 1)),
      row_to_assignment_(guarded_vector<int64_t>(sizes.num_rows)),
      assignment_to_row_(batch.num_tokens, batch.config.top_k, batch.stride()),
      block_experts_(guarded_vector<int32_t>(sizes.num_blocks)),
      totals_(guarded_vector<PermutationTotals>(1)),
      workspace_(static_cast<size_t>(workspace_bytes), std::byte{0x5a}) {}

Permutation GuardedPermutation::view() {
  return {tokens_per_expert_.vector(), expert_offsets_.vector(), row_to_assignment_.vector(),
          assignment_to_row_.matrix(), block_experts_.vector(),  totals_.vector().data};
}

SortedBatch GuardedPermutation::dense() const {
  return {tokens_per_expert_.dense(), expert_offsets_.dense(), row_to_assignment_.dense(),
          assignment_to_row_.dense(), block_experts_.dense(),  totals_.dense().front()};
}

bool GuardedPermutation::intact() const {
  return tokens_per_expert_.intact() && expert_offsets_.intact() && row_to_assignment_.intact() &&
         assignment_to_row_.intact() && block_experts_.intact() && totals_.intact();
}

bool GuardedPermutation::untouched() const {
  return tokens_per_expert_.untouched() && expert_offsets_.untouched() &&
         row_to_assignment_.untouched() && assignment_to_row_.untouched() &&
         block_experts_.untouched() && totals_.untouched();
}

SortedBatch sort_guarded(const PermuterVariant& variant, const PermutationCase& batch) {
  const auto permuter = make_route(variant, batch.config);
  GuardedPermutation out(*permuter, batch);
  permuter->sort(batch.expert_ids(), batch.gate_weights(), out.view(), out.workspace());
  EXPECT_TRUE(out.intact()) << "written outside of the output";
  return out.dense();
}

}  // namespace switchyard::test
