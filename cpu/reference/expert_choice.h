// The definition of right for expert choice: serial and plain.
#pragma once

#include "cpu/expert_choice.h"

namespace switchyard::cpu::reference {

void choose_tokens(const ExpertChoiceCall& call);

}  // namespace switchyard::cpu::reference
