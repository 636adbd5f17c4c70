#include "cuda/unpermute.h"

#include <algorithm>

#include "cuda/unpermute_kernels.cuh"

namespace switchyard::cuda {
namespace {

/// Whether every access of `columns` elements, 16 bytes at most, is aligned to its size.
bool is_aligned(const ConstTensorView& rows, int64_t columns) {
  const int64_t bytes = std::min<int64_t>(16, columns * size_of(rows.dtype));
  return reinterpret_cast<uintptr_t>(rows.data) % static_cast<uintptr_t>(bytes) == 0 &&
         rows.row_stride * size_of(rows.dtype) % bytes == 0;
}

using Kernel = void (*)(UnpermuteArgs);

Kernel kernel_for(DataType dtype, bool wide) {
  switch (dtype) {
    case DataType::kFloat32:
      return wide ? unpermute_kernel<float, 4> : unpermute_kernel<float, 1>;
    case DataType::kFloat16:
      return wide ? unpermute_kernel<Float16, 8> : unpermute_kernel<Float16, 1>;
    default:
      return wide ? unpermute_kernel<BFloat16, 8> : unpermute_kernel<BFloat16, 1>;
  }
}

}  // namespace

void unpermute_rows(const DeviceState& device, MatrixView<const int64_t> assignment_to_row,
                    ConstTensorView sorted, ConstTensorView gate_weights, TensorView tokens,
                    StreamView stream) {
  if (tokens.rows == 0 || tokens.cols == 0) return;
  const int64_t wide_columns = 16 / size_of(sorted.dtype);
  const bool wide = tokens.cols % wide_columns == 0 && is_aligned(sorted, wide_columns) &&
                    is_aligned(tokens, wide_columns);
  const int64_t block_columns = (wide ? wide_columns : 1) * kUnpermuteThreads;
  UnpermuteArgs args{};
  args.assignment_to_row = assignment_to_row;
  args.sorted = sorted;
  args.gate_weights = gate_weights;
  args.tokens = tokens;
  args.parts = ceil_div(tokens.cols, block_columns);
  args.num_items = tokens.rows * args.parts;
  const LaunchConfig config{
      .grid = dim3(static_cast<unsigned>(std::min(args.num_items, kMaxGridBlocks))),
      .block = dim3(kUnpermuteThreads),
      .stream = stream.get()};
  device.check(SWITCHYARD_LAUNCH(kernel_for(sorted.dtype, wide), config, args), "unpermute_kernel");
}

}  // namespace switchyard::cuda
