// Ranks that are threads of one process.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "switchyard/communicator.h"

namespace switchyard {

/// A group of `size` ranks on host memory, one end for each thread that plays a rank. The ranks use
/// each other's rows where they lie. An end that is destroyed while others still call fails the
/// group for them.
/// @throws InvalidArgument  unless 1 <= size <= 65536, or for refused options.
std::vector<std::unique_ptr<Communicator>> make_in_process_communicators(
    int size, const CommunicatorOptions& options = {});

/// Calls `body` on every rank of such a group, each on a thread of its own, and returns when all
/// have returned.
/// @throws as make_in_process_communicators(), and what a rank threw; where several did, what made
///         the others fail.
void run_ranks_as_threads(int size, const std::function<void(Communicator&)>& body,
                          const CommunicatorOptions& options = {});

}  // namespace switchyard
