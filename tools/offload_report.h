// What `switchyard offload` compares, and the page that it writes.
#pragma once

#include <string>
#include <vector>

#include "tools/offload_replay.h"

namespace switchyard::tools {

struct OffloadStudy {
  OffloadResults chosen;              ///< what was asked for
  std::vector<OffloadResults> plain;  ///< every policy without bonus and prefetch
};

OffloadStudy study_offload(const OffloadReplay& replay, const OffloadConfig& config);

/// One page that needs nothing but itself. Replays more: other numbers of slots, and where there
/// are logits other bounds.
std::string offload_page(const std::string& trace, const OffloadReplay& replay,
                         const OffloadStudy& study);

}  // namespace switchyard::tools
