#include "cpu/permute.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/permute.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Writes past the cache, which saves reading the lines that are about to be overwritten.
HWY_INLINE void StreamRow(const uint8_t* HWY_RESTRICT from, size_t bytes,
                          uint8_t* HWY_RESTRICT to) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  std::memcpy(to, from, bytes);
#else
  const hn::ScalableTag<uint8_t> d;
  const size_t N = hn::Lanes(d);
  const size_t misaligned = reinterpret_cast<uintptr_t>(to) % N;
  size_t i = std::min(bytes, misaligned == 0 ? 0 : N - misaligned);
  std::memcpy(to, from, i);
  for (; i + N <= bytes; i += N) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  std::memcpy(to + i, from + i, bytes - i);
#endif
}

void StreamTokens(const PermuteArgs& args, int64_t begin, int64_t end) {
  const MatrixView<int64_t>& rows = args.permutation.assignment_to_row;
  const auto row_bytes = static_cast<size_t>(args.tokens.cols);
  for (int64_t token = begin; token < end; ++token) {
    const auto* from = reinterpret_cast<const uint8_t*>(args.tokens.row(token));
    for (int64_t slot = 0; slot < rows.cols; ++slot) {
      const int64_t row = rows.row(token)[slot];
      if (row < 0) continue;
      StreamRow(from, row_bytes, reinterpret_cast<uint8_t*>(args.sorted.row(row)));
    }
  }
  hwy::FlushStream();
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {
namespace {

HWY_EXPORT(StreamTokens);

// Below this many bytes written, a second thread costs more than it saves.
constexpr int64_t kMinBytesPerTask = 1 << 19;
// What a last-level cache no longer holds. Measured on one core of an AMD EPYC with AVX-512 and
// 32 MiB of L3: 59 MB of bfloat16 rows copy at 24 GB/s past the cache and 11 GB/s through it, 8 MB
// at 28 and 67.
constexpr int64_t kStreamBytes = int64_t{32} << 20;

void copy_tokens(const PermuteArgs& args, int64_t begin, int64_t end) {
  const MatrixView<int64_t>& rows = args.permutation.assignment_to_row;
  const auto row_bytes = static_cast<size_t>(args.tokens.cols);
  for (int64_t token = begin; token < end; ++token) {
    for (int64_t slot = 0; slot < rows.cols; ++slot) {
      const int64_t row = rows.row(token)[slot];
      if (row >= 0) std::memcpy(args.sorted.row(row), args.tokens.row(token), row_bytes);
    }
  }
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

// Token by token, so that each row is read from memory once and not once for every slot.
void permute_rows(const ThreadTeam& team, const PermuteArgs& args) {
  const int64_t num_tokens = args.tokens.rows;
  if (num_tokens == 0 || args.tokens.cols == 0) return;
  const int64_t token_bytes = args.tokens.cols * args.permutation.assignment_to_row.cols;
  const int num_tasks =
      team.num_tasks(num_tokens, std::max<int64_t>(1, kMinBytesPerTask / token_bytes));
  const bool streams = args.permutation.totals->kept_assignments * args.tokens.cols >= kStreamBytes;
  team.run(num_tokens, num_tasks, 1, [&](int64_t begin, int64_t end, int task) {
    if (streams) {
      HWY_DYNAMIC_DISPATCH(StreamTokens)(args, begin, end);
    } else {
      copy_tokens(args, begin, end);
    }
    const int64_t num_experts = args.permutation.tokens_per_expert.size;
    clear_padding(args, ThreadTeam::first_item(num_experts, task, num_tasks, 1),
                  ThreadTeam::first_item(num_experts, task + 1, num_tasks, 1));
  });
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE
