#include "cuda/permute.h"

#include <algorithm>

#include "cuda/permute_kernels.cuh"

namespace switchyard::cuda {
namespace {

/// The widest access, up to 16 bytes, for which every row's start and length are multiples of it.
int64_t unit_bytes(const MatrixView<const std::byte>& tokens, const MatrixView<std::byte>& sorted) {
  const uintptr_t bits =
      reinterpret_cast<uintptr_t>(tokens.data) | reinterpret_cast<uintptr_t>(sorted.data) |
      static_cast<uintptr_t>(tokens.row_stride | sorted.row_stride | tokens.cols) | 16u;
  return static_cast<int64_t>(bits & (~bits + 1));
}

using Kernel = void (*)(PermuteArgs);

Kernel kernel_for(int64_t bytes) {
  switch (bytes) {
    case 16:
      return permute_kernel<uint4>;
    case 8:
      return permute_kernel<uint2>;
    case 4:
      return permute_kernel<uint32_t>;
    case 2:
      return permute_kernel<uint16_t>;
    default:
      return permute_kernel<uint8_t>;
  }
}

}  // namespace

void permute_rows(const DeviceState& device, const Permutation& permutation, int32_t block_rows,
                  MatrixView<const std::byte> tokens, MatrixView<std::byte> sorted,
                  StreamView stream) {
  if (tokens.rows == 0 || tokens.cols == 0) return;
  const int64_t bytes = unit_bytes(tokens, sorted);
  PermuteArgs args{};
  args.permutation = permutation;
  args.tokens = tokens;
  args.sorted = sorted;
  args.row_units = tokens.cols / bytes;
  args.parts = ceil_div(args.row_units, kPermuteThreads);
  args.padding_groups = ceil_div(block_rows - 1, kRowsToClear);
  args.num_items =
      (tokens.rows + permutation.tokens_per_expert.size * args.padding_groups) * args.parts;
  const LaunchConfig config{
      .grid = dim3(static_cast<unsigned>(std::min(args.num_items, kMaxGridBlocks))),
      .block = dim3(kPermuteThreads),
      .stream = stream.get()};
  device.check(SWITCHYARD_LAUNCH(kernel_for(bytes), config, args), "permute_kernel");
}

}  // namespace switchyard::cuda
