// The CUDA backend's expert affinity.
#pragma once

#include <memory>

#include "switchyard/expert_affinity_backend.h"

namespace switchyard::cuda {

/// For the device that is current now.
/// @throws Unavailable  when there is no CUDA device.
std::unique_ptr<ExpertAffinity::Implementation> make_cuda_affinity(
    const ExpertAffinityConfig& config);

}  // namespace switchyard::cuda
