#include "cpu/backend_registry.h"

#include "cpu/permutation.h"
#include "cpu/reference/permutation.h"
#include "cpu/reference/routing.h"
#include "cpu/routing.h"
#include "switchyard/errors.h"

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

namespace cpu {

std::vector<Backend> available_backends() { return {Backend::kReference, Backend::kCpu}; }

Backend resolve_backend(Backend wanted) {
  switch (wanted) {
    case Backend::kReference:
      return Backend::kReference;
    case Backend::kAuto:
    case Backend::kCpu:
      return Backend::kCpu;
    case Backend::kCuda:
      break;
  }
  throw Unavailable(std::string("backend ") + name_of(wanted) + " is not part of this build");
}

std::unique_ptr<Router::Implementation> make_router(const RouterConfig& config, Backend wanted,
                                                    const CpuThreads& threads) {
  if (resolve_backend(wanted) == Backend::kReference) return reference::make_router(config);
  return make_cpu_router(config, threads);
}

std::unique_ptr<Permuter::Implementation> make_permuter(const PermutationConfig& config,
                                                        Backend wanted, const CpuThreads& threads) {
  if (resolve_backend(wanted) == Backend::kReference) return reference::make_permuter(config);
  return make_cpu_permuter(config, threads);
}

}  // namespace cpu
}  // namespace switchyard
