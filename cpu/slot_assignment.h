// Slot assignment on the CPU.
#pragma once

#include <memory>

#include "switchyard/slot_assigner_backend.h"

namespace switchyard::cpu {

std::unique_ptr<SlotAssigner::Implementation> make_cpu_slot_assigner(
    const ExpertPlacement& placement, int32_t top_k, const CpuThreads& threads);

}  // namespace switchyard::cpu
