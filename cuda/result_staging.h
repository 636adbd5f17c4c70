// Results that come over from the device.
#pragma once

#include <memory>

#include "switchyard/result_staging.h"

namespace switchyard::cuda {

/// For the device that is current now.
/// @throws Unavailable  when there is no CUDA device.
std::unique_ptr<ResultStaging> make_cuda_staging(int64_t num_slots, int64_t slot_bytes);

}  // namespace switchyard::cuda
