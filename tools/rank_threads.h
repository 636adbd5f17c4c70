// Work of several ranks, each a thread of this program.
#pragma once

#include <functional>

#include "switchyard/communicator.h"

namespace switchyard::tools {

/// Calls `body` on every rank of a group and returns when all have returned.
/// @throws what a rank threw; where several did, what made the others fail.
void run_on_ranks(int num_ranks, const std::function<void(Communicator&)>& body);

}  // namespace switchyard::tools
