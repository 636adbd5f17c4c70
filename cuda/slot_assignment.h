// The CUDA backend's slot assignment.
#pragma once

#include <memory>

#include "switchyard/slot_assigner_backend.h"

namespace switchyard::cuda {

/// For the device that is current now. Calls enqueue on their stream and return. Ids are read on
/// the device only, where nothing can be thrown: one outside [-1, num_experts) counts as -1.
/// @throws Unavailable  when there is no CUDA device.
std::unique_ptr<SlotAssigner::Implementation> make_cuda_slot_assigner(
    const ExpertPlacement& placement, int32_t top_k);

}  // namespace switchyard::cuda
