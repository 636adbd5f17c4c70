// What the pipelines of one rank and of several do alike.
#pragma once

#include <chrono>
#include <cstdint>

#include "switchyard/data_type.h"
#include "switchyard/tensor_view.h"

namespace switchyard::tools {

/// The shortest time that a stage took.
class Fastest {
 public:
  template <typename Work>
  void time(const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (!timed_ || taken.count() < seconds_) seconds_ = taken.count();
    timed_ = true;
  }
  [[nodiscard]] double seconds() const { return seconds_; }

 private:
  bool timed_ = false;
  double seconds_ = 0.0;
};

template <typename T>
MatrixView<T> rows_of(MatrixView<T> view, int64_t begin, int64_t count) {
  return {view.row(begin), count, view.cols, view.row_stride};
}

inline ConstTensorView rows_of(const ConstTensorView& view, int64_t begin, int64_t count) {
  const auto* bytes = static_cast<const std::byte*>(view.data);
  return {bytes + begin * view.row_stride * size_of(view.dtype), view.dtype, count, view.cols,
          view.row_stride};
}

/// @param first_token  of the layer, for the message.
/// @throws Error  when a combined value differs from the dense computation, naming the first.
void expect_dense(int32_t layer, int64_t first_token, ConstTensorView tokens,
                  MatrixView<const int32_t> expert_ids, MatrixView<const float> gate_weights,
                  ConstTensorView combined);

}  // namespace switchyard::tools
