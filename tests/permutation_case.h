// One batch to permute, guarded memory for what comes out, and what must come out by definition.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "switchyard/permutation.h"
#include "tests/guarded.h"
#include "tests/random_stream.h"

namespace switchyard::test {

/// A backend as a test runs it.
struct PermuterVariant {
  std::string name;
  Backend backend = Backend::kReference;
  int64_t target = 0;  ///< Highway's bit; 0: whatever it chooses
  CpuThreads threads{};
};

/// The reference, serial and plain.
inline PermuterVariant reference_variant() { return {"reference", Backend::kReference, 0, {}}; }

/// `name` with everything but letters and digits replaced, as GoogleTest wants it.
std::string test_name(const PermuterVariant& variant);

inline void PrintTo(const PermuterVariant& variant, std::ostream* out) {
  *out << test_name(variant);
}

/// A permuter as a test uses it: on host memory, wherever its backend's memory is.
class PermuterRoute {
 public:
  virtual ~PermuterRoute() = default;

  [[nodiscard]] virtual PermutationSizes sizes(int64_t num_tokens) const = 0;
  [[nodiscard]] virtual int64_t workspace_bytes(int64_t max_tokens) const = 0;
  virtual void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
                    const Permutation& out, std::span<std::byte> workspace) const = 0;
  virtual void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
                       MatrixView<std::byte> sorted) const = 0;
  virtual void unpermute(const Permutation& permutation, ConstTensorView sorted,
                         ConstTensorView gate_weights, TensorView tokens) const = 0;
  /// Rows lie in `memory`, so many bytes behind its start; where the offset is negative, nowhere.
  virtual void permute_to(MatrixView<const std::byte> tokens, MatrixView<const int64_t> offsets,
                          std::span<std::byte> memory) const = 0;
  virtual void unpermute_from(MatrixView<const int64_t> offsets, std::span<const std::byte> memory,
                              DataType dtype, ConstTensorView gate_weights,
                              TensorView tokens) const = 0;
};

/// The addresses of rows, in an array of the offsets' shape; nobody may read between its rows.
template <typename Byte>
class RowAddresses {
 public:
  RowAddresses(MatrixView<const int64_t> offsets, Byte* memory)
      : shape_(offsets),
        addresses_(static_cast<size_t>(offsets.rows * offsets.row_stride), unreadable()) {
    for (int64_t token = 0; token < offsets.rows; ++token) {
      for (int64_t slot = 0; slot < offsets.cols; ++slot) {
        const int64_t offset = offsets.row(token)[slot];
        addresses_[static_cast<size_t>(token * offsets.row_stride + slot)] =
            offset < 0 ? nullptr : memory + offset;
      }
    }
  }

  [[nodiscard]] MatrixView<Byte* const> view() const {
    return {addresses_.data(), shape_.rows, shape_.cols, shape_.row_stride};
  }

 private:
  /// Not null, and nowhere.
  static Byte* unreadable() { return std::bit_cast<Byte*>(uintptr_t{1}); }

  MatrixView<const int64_t> shape_;
  std::vector<Byte*> addresses_;
};

/// Through the front door of a host backend.
std::unique_ptr<PermuterRoute> host_route(const PermuterVariant& variant,
                                          const PermutationConfig& config);

// What the tests run on is each test program's to say.

/// For moving rows: the reference, and the program's backends in every way that could matter.
const std::vector<PermuterVariant>& permuter_variants();
/// The same without what sorting does not know.
const std::vector<PermuterVariant>& sorting_variants();
std::unique_ptr<PermuterRoute> make_route(const PermuterVariant& variant,
                                          const PermutationConfig& config);

struct PermutationCase {
  PermutationConfig config;
  int64_t num_tokens = 0;
  int64_t padding = 0;  ///< elements between rows
  DataType weight_type = DataType::kFloat32;
  std::vector<int32_t> ids;      ///< [num_tokens, top_k + padding]
  std::vector<float> weights;    ///< the same shape
  std::vector<BFloat16> narrow;  ///< the same values, where weight_type says so

  [[nodiscard]] int64_t stride() const { return config.top_k + padding; }
  [[nodiscard]] MatrixView<const int32_t> expert_ids() const {
    return {ids.data(), num_tokens, config.top_k, stride()};
  }
  [[nodiscard]] ConstTensorView gate_weights() const;
  [[nodiscard]] int32_t id_at(int64_t token, int64_t slot) const {
    return ids[static_cast<size_t>(token * stride() + slot)];
  }
  [[nodiscard]] float weight_at(int64_t token, int64_t slot) const {
    return weights[static_cast<size_t>(token * stride() + slot)];
  }
};

/// One of `choices`.
template <typename T>
T one_of(RandomStream& random, std::initializer_list<T> choices) {
  return choices.begin()[random.below(static_cast<int64_t>(choices.size()))];
}

/// A case with these rows of ids; weights 1, 2, 3, …
PermutationCase make_case(PermutationConfig config, const std::vector<std::vector<int32_t>>& ids);

/// Random ids with empty slots and padding tokens, popular experts, and weights with ties, NaN,
/// infinities and zeros of both signs.
PermutationCase random_case(const PermutationConfig& config, int64_t num_tokens, int64_t padding,
                            DataType weight_type, RandomStream& random);

/// The arrays of a Permutation without guards.
struct SortedBatch {
  std::vector<int64_t> tokens_per_expert;
  std::vector<int64_t> expert_offsets;
  std::vector<int64_t> row_to_assignment;
  std::vector<int64_t> assignment_to_row;
  std::vector<int32_t> block_experts;
  PermutationTotals totals;

  bool operator==(const SortedBatch&) const = default;
};

/// What sort() must give, by counting for each assignment how many go before it.
SortedBatch defined_sort(const PermutationCase& batch, const PermutationSizes& sizes);

class GuardedPermutation {
 public:
  /// Sized for `batch` by a Permuter or a PermuterRoute; rows of assignment_to_row lie
  /// `batch.padding` further apart.
  template <typename AnyPermuter>
  GuardedPermutation(const AnyPermuter& permuter, const PermutationCase& batch)
      : GuardedPermutation(permuter.sizes(batch.num_tokens),
                           permuter.workspace_bytes(batch.num_tokens), batch) {}
  GuardedPermutation(const PermutationSizes& sizes, int64_t workspace_bytes,
                     const PermutationCase& batch);

  [[nodiscard]] Permutation view();
  [[nodiscard]] SortedBatch dense() const;
  [[nodiscard]] bool intact() const;
  [[nodiscard]] bool untouched() const;
  [[nodiscard]] std::span<std::byte> workspace() { return workspace_; }

 private:
  Guarded<int64_t> tokens_per_expert_;
  Guarded<int64_t> expert_offsets_;
  Guarded<int64_t> row_to_assignment_;
  Guarded<int64_t> assignment_to_row_;
  Guarded<int32_t> block_experts_;
  Guarded<PermutationTotals> totals_;
  std::vector<std::byte> workspace_;
};

/// Sorts `batch` and checks the guards.
SortedBatch sort_guarded(const PermuterVariant& variant, const PermutationCase& batch);

}  // namespace switchyard::test
