// Everything that a kernel's source sees of the executor when a host compiler reads it.
//
// The executor runs the kernels of cuda/ without a GPU: one fiber for each CUDA thread, one block,
// or one cluster of them, at a time, on one host thread. It is made to find mistakes, not to be
// fast.
#pragma once

#if defined(__CUDACC__)
#error "simt.h stands in for the GPU under host compilers; nvcc has the GPU itself"
#endif

// builtins.h comes first: it prepares for CUDA's own headers.
#include "tests/simt/builtins.h"
// Behind it, in any order.
#include "tests/simt/arithmetic_intrinsics.h"
#include "tests/simt/atomics.h"
#include "tests/simt/device_memory_intrinsics.h"
#include "tests/simt/fault.h"
#include "tests/simt/launch.h"
#include "tests/simt/settings.h"
#include "tests/simt/warp_intrinsics.h"
