#include "cpu/permute.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/permute.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "cpu/stream_copy-inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

template <class Rows>
HWY_INLINE void StreamTokens(MatrixView<const std::byte> tokens, const Rows& rows, int64_t begin,
                             int64_t end) {
  const auto row_bytes = static_cast<size_t>(tokens.cols);
  for (int64_t token = begin; token < end; ++token) {
    const auto* from = reinterpret_cast<const uint8_t*>(tokens.row(token));
    for (int64_t slot = 0; slot < rows.top_k(); ++slot) {
      std::byte* to = rows.of(token, slot);
      if (to != nullptr) StreamBytes(from, row_bytes, reinterpret_cast<uint8_t*>(to));
    }
  }
  hwy::FlushStream();  // whoever waits for this task sees the rows
}

void StreamToSorted(MatrixView<const std::byte> tokens, const SortedRows<std::byte>& rows,
                    int64_t begin, int64_t end) {
  StreamTokens(tokens, rows, begin, end);
}

void StreamToAddresses(MatrixView<const std::byte> tokens, const AddressedRows<std::byte>& rows,
                       int64_t begin, int64_t end) {
  StreamTokens(tokens, rows, begin, end);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {
namespace {

HWY_EXPORT(StreamToSorted);
HWY_EXPORT(StreamToAddresses);

// Below this many bytes written, a second thread costs more than it saves.
constexpr int64_t kMinBytesPerTask = 1 << 19;
// What a last-level cache no longer holds, with what else is in it. Measured on one core of an AMD
// EPYC with AVX-512 and 32 MiB of L3: 59 MB of bfloat16 rows copy at 24 GB/s past the cache and 11
// GB/s through it, 17 MB at 25 and 13, and 8 MB that were there already at 28 and 67.
constexpr int64_t kStreamBytes = int64_t{12} << 20;

void stream_tokens(MatrixView<const std::byte> tokens, const SortedRows<std::byte>& rows,
                   int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(StreamToSorted)(tokens, rows, begin, end);
}

void stream_tokens(MatrixView<const std::byte> tokens, const AddressedRows<std::byte>& rows,
                   int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(StreamToAddresses)(tokens, rows, begin, end);
}

template <class Rows>
void copy_tokens(MatrixView<const std::byte> tokens, const Rows& rows, int64_t begin, int64_t end) {
  const auto row_bytes = static_cast<size_t>(tokens.cols);
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t slot = 0; slot < rows.top_k(); ++slot) {
      std::byte* to = rows.of(token, slot);
      if (to != nullptr) std::memcpy(to, tokens.row(token), row_bytes);
    }
  }
}

/// Copies `num_rows` rows at most, token by token, so that each one is read from memory once and
/// not once for every slot. `also(task, num_tasks)` is done by every task.
template <class Rows, typename Also>
void copy_rows(const ThreadTeam& team, MatrixView<const std::byte> tokens, const Rows& rows,
               int64_t num_rows, const Also& also) {
  if (tokens.rows == 0 || tokens.cols == 0) return;
  const int64_t token_bytes = tokens.cols * rows.top_k();
  const int num_tasks =
      team.num_tasks(tokens.rows, std::max<int64_t>(1, kMinBytesPerTask / token_bytes));
  const bool streams = num_rows * tokens.cols >= kStreamBytes;
  team.run(tokens.rows, num_tasks, 1, [&](int64_t begin, int64_t end, int task) {
    if (streams) {
      stream_tokens(tokens, rows, begin, end);
    } else {
      copy_tokens(tokens, rows, begin, end);
    }
    also(task, num_tasks);
  });
}

void clear_padding(const PermuteArgs& args, int64_t begin, int64_t end) {
  const Permutation& permutation = args.permutation;
  for (int64_t expert = begin; expert < end; ++expert) {
    int64_t row = permutation.expert_offsets[expert] + permutation.tokens_per_expert[expert];
    for (; row < permutation.expert_offsets[expert + 1]; ++row) {
      std::memset(args.sorted.row(row), 0, static_cast<size_t>(args.sorted.cols));
    }
  }
}

}  // namespace

void permute_rows(const ThreadTeam& team, const PermuteArgs& args) {
  const SortedRows<std::byte> rows{args.permutation.assignment_to_row, args.sorted};
  const int64_t num_experts = args.permutation.tokens_per_expert.size;
  copy_rows(team, args.tokens, rows, args.permutation.totals->kept_assignments,
            [&](int task, int num_tasks) {
              clear_padding(args, ThreadTeam::first_item(num_experts, task, num_tasks, 1),
                            ThreadTeam::first_item(num_experts, task + 1, num_tasks, 1));
            });
}

void permute_rows_to(const ThreadTeam& team, MatrixView<const std::byte> tokens,
                     const AddressedRows<std::byte>& rows) {
  copy_rows(team, tokens, rows, tokens.rows * rows.top_k(), [](int, int) {});
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
