#include "cuda/unpermute.h"

#include <algorithm>

#include "cuda/unpermute_kernels.cuh"

namespace switchyard::cuda {
namespace {

/// Columns that a thread takes of a row where it can take several.
int64_t wide_columns(DataType dtype) { return 16 / size_of(dtype); }

/// Whether every access of `columns` elements, 16 bytes at most, is aligned to its size.
bool is_aligned(const ConstTensorView& rows, int64_t columns) {
  const int64_t bytes = std::min<int64_t>(16, columns * size_of(rows.dtype));
  return reinterpret_cast<uintptr_t>(rows.data) % static_cast<uintptr_t>(bytes) == 0 &&
         rows.row_stride * size_of(rows.dtype) % bytes == 0;
}

template <class Rows>
using Kernel = void (*)(UnpermuteArgs<Rows>);

template <class Rows>
Kernel<Rows> kernel_for(DataType dtype, bool wide) {
  switch (dtype) {
    case DataType::kFloat32:
      return wide ? unpermute_kernel<float, 4, Rows> : unpermute_kernel<float, 1, Rows>;
    case DataType::kFloat16:
      return wide ? unpermute_kernel<Float16, 8, Rows> : unpermute_kernel<Float16, 1, Rows>;
    default:
      return wide ? unpermute_kernel<BFloat16, 8, Rows> : unpermute_kernel<BFloat16, 1, Rows>;
  }
}

/// `rows_allow_wide`: whether wide accesses to rows of this many wide columns are aligned.
template <class Rows>
void combine_rows(const DeviceState& device, const Rows& rows, DataType dtype, bool rows_allow_wide,
                  ConstTensorView gate_weights, TensorView tokens, StreamView stream) {
  if (tokens.rows == 0 || tokens.cols == 0) return;
  const bool wide = rows_allow_wide && tokens.cols % wide_columns(dtype) == 0 &&
                    is_aligned(tokens, wide_columns(dtype));
  const int64_t block_columns = (wide ? wide_columns(dtype) : 1) * kUnpermuteThreads;
  UnpermuteArgs<Rows> args{};
  args.rows = rows;
  args.gate_weights = gate_weights;
  args.tokens = tokens;
  args.parts = ceil_div(tokens.cols, block_columns);
  args.num_items = tokens.rows * args.parts;
  const LaunchConfig config{
      .grid = dim3(static_cast<unsigned>(std::min(args.num_items, kMaxGridBlocks))),
      .block = dim3(kUnpermuteThreads),
      .stream = stream.get()};
  device.check(SWITCHYARD_LAUNCH(kernel_for<Rows>(dtype, wide), config, args), "unpermute_kernel");
}

}  // namespace

void unpermute_rows(const DeviceState& device, MatrixView<const int64_t> assignment_to_row,
                    ConstTensorView sorted, ConstTensorView gate_weights, TensorView tokens,
                    StreamView stream) {
  const int64_t bytes = size_of(sorted.dtype);
  const MatrixView<const std::byte> rows(static_cast<const std::byte*>(sorted.data), sorted.rows,
                                         sorted.cols * bytes, sorted.row_stride * bytes);
  combine_rows(device, SortedRows<const std::byte>{assignment_to_row, rows}, sorted.dtype,
               is_aligned(sorted, wide_columns(sorted.dtype)), gate_weights, tokens, stream);
}

void unpermute_rows_from(const DeviceState& device, MatrixView<const std::byte* const> rows,
                         DataType dtype, ConstTensorView gate_weights, TensorView tokens,
                         StreamView stream) {
  // Wide rows are aligned by contract.
  combine_rows(device, AddressedRows<const std::byte>{rows}, dtype, true, gate_weights, tokens,
               stream);
}

}  // namespace switchyard::cuda
