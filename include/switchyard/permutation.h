// Permutation: a batch's assignments sorted by expert, and rows moved there and back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/data_type.h"
#include "switchyard/executor.h"
#include "switchyard/router.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

inline constexpr int32_t kMaxPermutationExperts = 4096;
inline constexpr int32_t kMaxPermutationSlots = 128;
inline constexpr int32_t kMaxBlockRows = 256;

/// Which assignments of a full expert are dropped.
enum class DropPolicy : uint8_t {
  kPosition,  ///< the last ones in (token, slot) order
  kWeight,    ///< the ones with the smallest gate weight; equal ones by position, NaN first
};

/// How many assignments one expert takes.
struct ExpertCapacity {
  enum class Mode : uint8_t { kUnlimited, kFixed, kFactor };
  Mode mode = Mode::kUnlimited;
  int64_t rows = 0;     ///< kFixed: assignments an expert takes, 0 or more
  double factor = 0.0;  ///< kFactor: finite and above 0
  DropPolicy drop_policy = DropPolicy::kPosition;

  bool operator==(const ExpertCapacity&) const = default;
};

/// Assignments that one expert takes of a batch: fixed, or max(1, ceil(factor * (T * k) / E)) in
/// float64 for T > 0 and 0 for T = 0; INT64_MAX where unlimited or beyond it. (GShard, arXiv
/// 2006.16668.)
/// @throws InvalidArgument  naming the argument, its value and the limit.
int64_t capacity_rows(const ExpertCapacity& capacity, int64_t num_tokens, int32_t top_k,
                      int32_t num_experts);

struct PermutationConfig {
  int32_t num_experts = 0;  ///< ids are in [0, num_experts); 1 to 4096
  int32_t top_k = 0;        ///< slots a token, 1 to 128; may hold one expert more than once
  int32_t block_rows = 1;   ///< each expert's rows start at a multiple of this; 1 to 256
  ExpertCapacity capacity{};
  int32_t first_local_expert = 0;  ///< experts before this one belong to somebody else
  int32_t num_local_experts = -1;  ///< -1: all from first_local_expert on; 0: none

  /// num_local_experts with -1 resolved.
  [[nodiscard]] constexpr int32_t num_local() const {
    return num_local_experts < 0 ? num_experts - first_local_expert : num_local_experts;
  }
  bool operator==(const PermutationConfig&) const = default;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const PermutationConfig& config);

/// Sizes of the arrays of a Permutation: what the worst batch of `num_tokens` needs.
struct PermutationSizes {
  int64_t num_rows = 0;    ///< sorted rows, alignment padding included; a multiple of block_rows
  int64_t num_blocks = 0;  ///< num_rows / block_rows
};

/// Counts of one batch; all concern local experts.
struct PermutationTotals {
  int64_t num_rows = 0;              ///< rows in use, alignment padding included
  int64_t kept_assignments = 0;      ///< rows that hold an assignment
  int64_t dropped_assignments = 0;   ///< local assignments beyond an expert's capacity
  int64_t fully_dropped_tokens = 0;  ///< tokens with local assignments, all of them dropped

  bool operator==(const PermutationTotals&) const = default;
};

/// Views of caller-owned memory in the backend's space; written whole. Experts are local: index 0
/// is first_local_expert. An assignment is token * top_k + slot.
struct Permutation {
  VectorView<int64_t> tokens_per_expert;  ///< [num_local] assignments kept
  VectorView<int64_t> expert_offsets;     ///< [num_local + 1] first row of each expert, aligned
  VectorView<int64_t> row_to_assignment;  ///< [num_rows] -1: alignment padding or past the end
  MatrixView<int64_t> assignment_to_row;  ///< [num_tokens, top_k] -1: padding, dropped or not local
  VectorView<int32_t> block_experts;      ///< [num_blocks] local expert, -1 past the end
  PermutationTotals* totals = nullptr;    ///< [1]
};

/// Sorts assignments by expert and moves rows accordingly. Thread-safe like Router.
class Permuter {
 public:
  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  explicit Permuter(const PermutationConfig& config, Backend backend = Backend::kAuto,
                    CpuThreads threads = {});
  ~Permuter();
  Permuter(Permuter&&) noexcept;
  Permuter& operator=(Permuter&&) noexcept;

  [[nodiscard]] const PermutationConfig& config() const;
  [[nodiscard]] Backend backend() const;

  /// @throws InvalidArgument  unless 0 <= num_tokens <= 2^48.
  [[nodiscard]] PermutationSizes sizes(int64_t num_tokens) const;
  /// Bytes of workspace, in the backend's memory, that sort() needs for up to `max_tokens` tokens.
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const;

  /// Sorts a batch's assignments by (expert, token, slot): two runs give the same bytes.
  ///
  /// @param expert_ids    [num_tokens, top_k]; -1 marks a padding token or an empty slot. Device
  ///                      backends, which cannot throw for what they read, take any other id
  ///                      outside [0, num_experts) for -1.
  /// @param gate_weights  [num_tokens, top_k] float32 or bfloat16; read by a limited capacity with
  ///                      DropPolicy::kWeight only, may be empty otherwise.
  /// @param out           sizes from sizes(); written whole.
  /// @param workspace     at least workspace_bytes(num_tokens), at any alignment on host backends,
  ///                      aligned to 16 bytes on devices. Calls in flight need one each.
  /// @throws InvalidArgument  when a shape disagrees with the config, or (host backends) an id is
  ///                          outside [-1, num_experts), naming token, slot and id. Nothing is
  ///                          written to `out` then.
  /// Neither allocates nor synchronises. T = 0 is legal.
  void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
            const Permutation& out, std::span<std::byte> workspace, StreamView stream = {}) const;

  /// Copies each token's row to the rows of its assignments; padding rows become zero bytes.
  ///
  /// @param permutation  filled by sort().
  /// @param tokens       [num_tokens, bytes a row]; any element type, the stride in bytes.
  /// @param sorted       [num_rows, bytes a row]; rows past totals->num_rows are not written.
  /// @throws InvalidArgument  when a shape disagrees with the permutation or the config.
  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted, StreamView stream = {}) const;

  /// Combines the experts' answers: out[t] = sum over slots j of weight[t, j] * sorted[row(t, j)],
  /// accumulated in float32 in slot order by fused multiply-adds from 0, rounded to nearest even
  /// once at the end. Slots without a row add nothing; a token with none gets zeros. Every NaN
  /// comes out as the positive quiet one without payload (0x7fc00000, 0x7e00, 0x7fc0), since
  /// processors disagree on which operand's payload lives on.
  ///
  /// @param sorted        [num_rows, hidden_size] float32, float16 or bfloat16.
  /// @param gate_weights  [num_tokens, top_k] float32 or bfloat16; an empty view means weight 1.
  /// @param tokens        [num_tokens, hidden_size] float32, float16 or bfloat16.
  /// @throws InvalidArgument  when a shape disagrees with the permutation or the config.
  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens, StreamView stream = {}) const;

  /// permute() to rows that lie anywhere, other ranks' memory included; nothing else is written.
  ///
  /// @param tokens  [num_tokens, bytes a row]; any element type, the stride in bytes.
  /// @param rows    [num_tokens, top_k] address of each assignment's row, null where it has none.
  ///                No row overlaps another one or the tokens. On devices the array is in the
  ///                backend's memory, kernels can follow the addresses in it, which nobody checks,
  ///                and each is a multiple of the largest power of two up to 16 that divides the
  ///                bytes of a row.
  /// @throws InvalidArgument  when a shape disagrees with the tokens or the config.
  void permute_to(MatrixView<const std::byte> tokens, MatrixView<std::byte* const> rows,
                  StreamView stream = {}) const;

  /// unpermute() from rows that lie anywhere: the same sums, the same bits.
  ///
  /// @param rows          [num_tokens, top_k] address of each assignment's row of hidden_size
  ///                      elements, aligned like one; null where it has none. On devices as for
  ///                      permute_to().
  /// @param dtype         of the rows' elements: float32, float16 or bfloat16.
  /// @param gate_weights  as for unpermute().
  /// @param tokens        as for unpermute().
  /// @throws InvalidArgument  when a shape disagrees with the tokens or the config.
  void unpermute_from(MatrixView<const std::byte* const> rows, DataType dtype,
                      ConstTensorView gate_weights, TensorView tokens,
                      StreamView stream = {}) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard
