// The definition of right for expert choice: serial and plain.
#pragma once

#include <memory>

#include "switchyard/expert_choice_backend.h"

namespace switchyard::cpu::reference {

std::unique_ptr<ExpertChoiceRouter::Implementation> make_expert_choice_router(
    const ExpertChoiceConfig& config);

}  // namespace switchyard::cpu::reference
