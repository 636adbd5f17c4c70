// Results that are on the host already.
#pragma once

#include <memory>

#include "switchyard/result_staging.h"

namespace switchyard::cpu {

std::unique_ptr<ResultStaging> make_host_staging(int64_t num_slots, int64_t slot_bytes);

}  // namespace switchyard::cpu
