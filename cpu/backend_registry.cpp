#include "cpu/backend_registry.h"

#include <cstring>
#include <new>
#include <utility>

#include "cpu/expert_affinity.h"
#include "cpu/expert_choice.h"
#include "cpu/hash_routing.h"
#include "cpu/logging.h"
#include "cpu/permutation.h"
#include "cpu/reference/expert_affinity.h"
#include "cpu/reference/expert_choice.h"
#include "cpu/reference/hash_routing.h"
#include "cpu/reference/permutation.h"
#include "cpu/reference/routing.h"
#include "cpu/reference/slot_assignment.h"
#include "cpu/result_staging.h"
#include "cpu/routing.h"
#include "cpu/slot_assignment.h"
#include "switchyard/backend_memory.h"
#include "switchyard/errors.h"

#ifdef SWITCHYARD_CUDA
#include "cuda/device_memory.h"
#include "cuda/devices.h"
#include "cuda/expert_affinity.h"
#include "cuda/expert_choice.h"
#include "cuda/hash_routing.h"
#include "cuda/managed_memory.h"
#include "cuda/permutation.h"
#include "cuda/result_staging.h"
#include "cuda/routing.h"
#include "cuda/slot_assignment.h"
#include "cuda/sorting_router.h"
#endif

namespace switchyard {

const char* name_of(Backend backend) {
  switch (backend) {
    case Backend::kAuto:
      return "auto";
    case Backend::kReference:
      return "reference";
    case Backend::kCpu:
      return "cpu";
    case Backend::kCuda:
      return "cuda";
  }
  return "?";
}

namespace {

constexpr std::align_val_t kSharedAlignment{64};

}  // namespace

void* allocate_shared_memory(std::size_t bytes, Backend backend) {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) return cuda::allocate_managed(bytes);
#else
  cpu::resolve_backend(backend);
#endif
  return std::memset(::operator new(bytes, kSharedAlignment), 0, bytes);
}

void release_shared_memory(void* memory, [[maybe_unused]] Backend backend) noexcept {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) return cuda::release_managed(memory);
#endif
  ::operator delete(memory, kSharedAlignment);
}

void* allocate_backend_memory(std::size_t bytes, Backend backend) {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) return cuda::allocate_device(bytes);
#endif
  return allocate_shared_memory(bytes, backend);
}

void release_backend_memory(void* memory, Backend backend) noexcept {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) return cuda::release_device(memory);
#endif
  release_shared_memory(memory, backend);
}

void* allocate_pinned_memory(std::size_t bytes, Backend backend) {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) return cuda::allocate_pinned(bytes);
#endif
  return allocate_shared_memory(bytes, backend);
}

void release_pinned_memory(void* memory, Backend backend) noexcept {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) return cuda::release_pinned(memory);
#endif
  release_shared_memory(memory, backend);
}

void copy_memory([[maybe_unused]] Backend backend, void* to, const void* from, std::size_t bytes,
                 [[maybe_unused]] StreamView stream) {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) {
    return cuda::copy_memory(to, from, bytes, stream);
  }
#endif
  std::memcpy(to, from, bytes);
}

void synchronize([[maybe_unused]] Backend backend, [[maybe_unused]] StreamView stream) {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) cuda::synchronize(stream);
#endif
}

std::unique_ptr<ResultStaging> make_result_staging(int64_t num_slots, int64_t slot_bytes,
                                                   Backend backend) {
#ifdef SWITCHYARD_CUDA
  if (cpu::resolve_backend(backend) == Backend::kCuda) {
    return cuda::make_cuda_staging(num_slots, slot_bytes);
  }
#else
  cpu::resolve_backend(backend);
#endif
  return cpu::make_host_staging(num_slots, slot_bytes);
}

namespace cpu {
namespace {

#ifdef SWITCHYARD_CUDA
/// Empty where there is a GPU; why not, elsewhere. The machine is asked once.
const std::string& why_no_gpu() {
  static const std::string kReason = [] {
    std::string reason;
    static_cast<void>(cuda::list_gpus(reason));
    return reason;
  }();
  return kReason;
}
#endif

/// CUDA where this build has it and the machine a GPU; says once why not.
Backend fastest_backend() {
#ifdef SWITCHYARD_CUDA
  if (why_no_gpu().empty()) return Backend::kCuda;
  static const bool kSaid = [] {
    log(LogLevel::kInfo, "backend auto is cpu: " + why_no_gpu());
    return true;
  }();
  static_cast<void>(kSaid);
#endif
  return Backend::kCpu;
}

}  // namespace

std::vector<Backend> available_backends() {
  std::vector<Backend> backends{Backend::kReference, Backend::kCpu};
#ifdef SWITCHYARD_CUDA
  if (why_no_gpu().empty()) backends.push_back(Backend::kCuda);
#endif
  return backends;
}

Backend resolve_backend(Backend wanted) {
  switch (wanted) {
    case Backend::kAuto:
      return fastest_backend();
    case Backend::kReference:
    case Backend::kCpu:
      return wanted;
    case Backend::kCuda:
      break;
  }
#ifdef SWITCHYARD_CUDA
  if (!why_no_gpu().empty()) throw Unavailable("backend cuda: " + why_no_gpu());
  return Backend::kCuda;
#else
  throw Unavailable(std::string("backend ") + name_of(wanted) + " is not part of this build");
#endif
}

std::unique_ptr<Router::Implementation> make_router(const RouterConfig& config, Backend wanted,
                                                    const CpuThreads& threads) {
  switch (resolve_backend(wanted)) {
    case Backend::kReference:
      return reference::make_router(config);
#ifdef SWITCHYARD_CUDA
    case Backend::kCuda:
      return cuda::make_cuda_router(config);
#endif
    default:
      return make_cpu_router(config, threads);
  }
}

std::unique_ptr<Permuter::Implementation> make_permuter(const PermutationConfig& config,
                                                        Backend wanted, const CpuThreads& threads) {
  switch (resolve_backend(wanted)) {
    case Backend::kReference:
      return reference::make_permuter(config);
#ifdef SWITCHYARD_CUDA
    case Backend::kCuda:
      return cuda::make_cuda_permuter(config);
#endif
    default:
      return make_cpu_permuter(config, threads);
  }
}

std::unique_ptr<SortingRouter::Implementation> make_sorting_router(Router router,
                                                                   Permuter permuter) {
#ifdef SWITCHYARD_CUDA
  if (router.backend() == Backend::kCuda) {
    return cuda::make_cuda_sorting_router(std::move(router), std::move(permuter));
  }
#endif
  return std::make_unique<SortingRouter::Implementation>(std::move(router), std::move(permuter));
}

std::unique_ptr<ExpertChoiceRouter::Implementation> make_expert_choice_router(
    const ExpertChoiceConfig& config, Backend wanted, const CpuThreads& threads) {
  switch (resolve_backend(wanted)) {
    case Backend::kReference:
      return reference::make_expert_choice_router(config);
#ifdef SWITCHYARD_CUDA
    case Backend::kCuda:
      return cuda::make_cuda_expert_choice_router(config);
#endif
    default:
      return make_cpu_expert_choice_router(config, threads);
  }
}

std::unique_ptr<HashRouter::Implementation> make_hash_router(const RouterConfig& config,
                                                             Backend wanted,
                                                             const CpuThreads& threads) {
  switch (resolve_backend(wanted)) {
    case Backend::kReference:
      return reference::make_hash_router(config);
#ifdef SWITCHYARD_CUDA
    case Backend::kCuda:
      return cuda::make_cuda_hash_router(config);
#endif
    default:
      return make_cpu_hash_router(config, threads);
  }
}

std::unique_ptr<ExpertAffinity::Implementation> make_affinity(const ExpertAffinityConfig& config,
                                                              Backend wanted) {
  switch (resolve_backend(wanted)) {
    case Backend::kReference:
      return reference::make_affinity(config);
#ifdef SWITCHYARD_CUDA
    case Backend::kCuda:
      return cuda::make_cuda_affinity(config);
#endif
    default:
      return make_cpu_affinity(config);
  }
}

std::unique_ptr<SlotAssigner::Implementation> make_slot_assigner(const ExpertPlacement& placement,
                                                                 int32_t top_k, Backend wanted,
                                                                 const CpuThreads& threads) {
  switch (resolve_backend(wanted)) {
    case Backend::kReference:
      return reference::make_slot_assigner(placement, top_k);
#ifdef SWITCHYARD_CUDA
    case Backend::kCuda:
      return cuda::make_cuda_slot_assigner(placement, top_k);
#endif
    default:
      return make_cpu_slot_assigner(placement, top_k, threads);
  }
}

}  // namespace cpu
}  // namespace switchyard
