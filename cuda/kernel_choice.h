// Tables of kernels by how much of a row a lane of a warp holds.
#pragma once

#include <cstddef>

#include "cuda/intrinsics.cuh"

namespace switchyard::cuda {

template <class... Arguments>
struct KernelChoice {
  int per_lane;
  void (*kernel)(Arguments...);
};

/// The first kernel of an ascending table whose warps hold `row_size` elements; nullptr where none
/// does.
template <class Choice, std::size_t kCount>
const Choice* find_kernel(const Choice (&choices)[kCount], int row_size) {
  for (const Choice& choice : choices) {
    if (choice.per_lane * kWarpSize >= row_size) return &choice;
  }
  return nullptr;
}

}  // namespace switchyard::cuda
