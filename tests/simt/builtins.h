// CUDA's built-in variables and the parts of its language that a host compiler lacks.
#pragma once

// CUDA's headers leave it undefined outside nvcc.
#ifndef __launch_bounds__
#define __launch_bounds__(...)  // NOLINT(bugprone-reserved-identifier)
#endif
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "tests/simt/device_hooks.h"

// NOLINTBEGIN(readability-identifier-naming,bugprone-macro-parentheses)

// Set whenever another thread of a block starts to run.
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

// One host thread runs all, so plain arrays would do; these are also bounded, start as garbage and
// are each block's own.
#undef __shared__
#define SIMT_SHARED(type, name, ...)                                                              \
  using name##_shared_type = type __VA_ARGS__;                                                    \
  static const char name##_shared_key = 0;                                                        \
  name##_shared_type& name = *static_cast<name##_shared_type*>(::switchyard::simt::static_shared( \
      &name##_shared_key, sizeof(name##_shared_type), alignof(name##_shared_type), #name))
#define SIMT_DYNAMIC_SHARED(type, name) \
  type* const name = static_cast<type*>(::switchyard::simt::dynamic_shared())

// NOLINTEND(readability-identifier-naming,bugprone-macro-parentheses)
