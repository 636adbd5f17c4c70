// The definition of right for slot assignment: serial and plain.
#pragma once

#include <memory>

#include "switchyard/slot_assigner_backend.h"

namespace switchyard::cpu::reference {

std::unique_ptr<SlotAssigner::Implementation> make_slot_assigner(const ExpertPlacement& placement,
                                                                 int32_t top_k);

}  // namespace switchyard::cpu::reference
