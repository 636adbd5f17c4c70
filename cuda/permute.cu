#include "cuda/permute.h"

#include <algorithm>

#include "cuda/permute_kernels.cuh"

namespace switchyard::cuda {
namespace {

/// Bits that are 0 in the start and the length of every row.
template <typename Byte>
uintptr_t row_bits(const MatrixView<Byte>& rows) {
  return reinterpret_cast<uintptr_t>(rows.data) |
         static_cast<uintptr_t>(rows.row_stride | rows.cols);
}

/// The widest access, up to 16 bytes, that leaves nothing of rows with these bits.
int64_t unit_bytes(uintptr_t bits) {
  bits |= 16u;
  return static_cast<int64_t>(bits & (~bits + 1));
}

/// What copies rows of such units, by the kernels that `choose` has for them.
template <typename Choose>
auto kernel_for(int64_t bytes, const Choose& choose) {
  switch (bytes) {
    case 16:
      return choose(uint4{});
    case 8:
      return choose(uint2{});
    case 4:
      return choose(uint32_t{});
    case 2:
      return choose(uint16_t{});
    default:
      return choose(uint8_t{});
  }
}

template <class Rows>
CopyArgs<Rows> copy_args(MatrixView<const std::byte> tokens, const Rows& rows, int64_t bytes) {
  CopyArgs<Rows> args{};
  args.tokens = tokens;
  args.rows = rows;
  args.row_units = tokens.cols / bytes;
  args.parts = ceil_div(args.row_units, kPermuteThreads);
  return args;
}

LaunchConfig blocks_for(int64_t num_items, StreamView stream) {
  return {.grid = dim3(static_cast<unsigned>(std::min(num_items, kMaxGridBlocks))),
          .block = dim3(kPermuteThreads),
          .stream = stream.get()};
}

}  // namespace

void permute_rows(const DeviceState& device, const Permutation& permutation, int32_t block_rows,
                  MatrixView<const std::byte> tokens, MatrixView<std::byte> sorted,
                  StreamView stream) {
  if (tokens.rows == 0 || tokens.cols == 0) return;
  const int64_t bytes = unit_bytes(row_bits(tokens) | row_bits(sorted));
  PermuteArgs args{};
  args.copy =
      copy_args(tokens, SortedRows<std::byte>{permutation.assignment_to_row, sorted}, bytes);
  args.tokens_per_expert = permutation.tokens_per_expert;
  args.expert_offsets = permutation.expert_offsets;
  args.padding_groups = ceil_div(block_rows - 1, kRowsToClear);
  args.num_items =
      (tokens.rows + permutation.tokens_per_expert.size * args.padding_groups) * args.copy.parts;
  const auto kernel = kernel_for(bytes, [](auto unit) { return &permute_kernel<decltype(unit)>; });
  device.check(SWITCHYARD_LAUNCH(kernel, blocks_for(args.num_items, stream), args),
               "permute_kernel");
}

void permute_rows_to(const DeviceState& device, MatrixView<const std::byte> tokens,
                     MatrixView<std::byte* const> rows, StreamView stream) {
  if (tokens.rows == 0 || tokens.cols == 0) return;
  const int64_t bytes = unit_bytes(row_bits(tokens));
  const CopyArgs<AddressedRows<std::byte>> args =
      copy_args(tokens, AddressedRows<std::byte>{rows}, bytes);
  const auto kernel =
      kernel_for(bytes, [](auto unit) { return &permute_to_kernel<decltype(unit)>; });
  device.check(SWITCHYARD_LAUNCH(kernel, blocks_for(tokens.rows * args.parts, stream), args),
               "permute_to_kernel");
}

}  // namespace switchyard::cuda
