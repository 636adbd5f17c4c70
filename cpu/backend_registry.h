// Which backends there are. The only place that names more than one of them.
#pragma once

#include <memory>
#include <vector>

#include "switchyard/expert_affinity_backend.h"
#include "switchyard/expert_choice_backend.h"
#include "switchyard/hash_routing_backend.h"
#include "switchyard/permuter_backend.h"
#include "switchyard/router_backend.h"
#include "switchyard/slot_assigner_backend.h"
#include "switchyard/sorting_router_backend.h"

namespace switchyard::cpu {

/// Backends that this build and machine can use, kReference and kCpu always among them.
std::vector<Backend> available_backends();

/// The backend that `wanted` means here; kAuto takes the fastest.
/// @throws Unavailable  saying why.
Backend resolve_backend(Backend wanted);

std::unique_ptr<Router::Implementation> make_router(const RouterConfig& config, Backend wanted,
                                                    const CpuThreads& threads);
std::unique_ptr<Permuter::Implementation> make_permuter(const PermutationConfig& config,
                                                        Backend wanted, const CpuThreads& threads);
/// Both are of one backend.
std::unique_ptr<SortingRouter::Implementation> make_sorting_router(Router router,
                                                                   Permuter permuter);
std::unique_ptr<ExpertAffinity::Implementation> make_affinity(const ExpertAffinityConfig& config,
                                                              Backend wanted);

std::unique_ptr<ExpertChoiceRouter::Implementation> make_expert_choice_router(
    const ExpertChoiceConfig& config, Backend wanted, const CpuThreads& threads);
std::unique_ptr<HashRouter::Implementation> make_hash_router(const RouterConfig& config,
                                                             Backend wanted,
                                                             const CpuThreads& threads);
std::unique_ptr<SlotAssigner::Implementation> make_slot_assigner(const ExpertPlacement& placement,
                                                                 int32_t top_k, Backend wanted,
                                                                 const CpuThreads& threads);

}  // namespace switchyard::cpu
