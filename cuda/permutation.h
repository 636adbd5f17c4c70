// The CUDA backend's permutation.
#pragma once

#include <memory>

#include "switchyard/permuter_backend.h"

namespace switchyard::cuda {

/// A permuter for the current device. Its calls enqueue on their stream and return; they neither
/// allocate nor synchronise, so a CUDA graph can capture them, and each call in flight needs a
/// workspace of its own, aligned to 16 bytes.
///
/// Beyond what Permuter says, calls throw before anything is enqueued:
///   InvalidArgument  when kernels cannot follow a pointer, or it is misaligned, or the stream
///                    belongs to another device.
///   CudaError        when the device met an error that cannot be undone.
/// A launch that fails throws CudaError too.
///
/// Ids are read on the device only, where nothing can be thrown: one outside [-1, num_experts)
/// counts as -1.
/// @throws Unavailable  when there is no device.
std::unique_ptr<Permuter::Implementation> make_cuda_permuter(const PermutationConfig& config);

}  // namespace switchyard::cuda
