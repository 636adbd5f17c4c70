// The CUDA backend's expert choice.
#pragma once

#include <memory>

#include "switchyard/expert_choice_backend.h"

namespace switchyard::cuda {

/// Routes on the device that is current now. Calls enqueue on their stream and return; each call in
/// flight needs a workspace of its own.
/// @throws Unavailable  when there is no CUDA device.
std::unique_ptr<ExpertChoiceRouter::Implementation> make_cuda_expert_choice_router(
    const ExpertChoiceConfig& config);

}  // namespace switchyard::cuda
