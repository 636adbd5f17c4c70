// Cuts the device workspace that a caller passes in into typed parts.
#pragma once

#include "switchyard/workspace_parts.h"

namespace switchyard::cuda {

using WorkspaceParts = AlignedParts<16>;

}  // namespace switchyard::cuda
